//! The model card: `README.md` of an artifact, written from the run record alone.

use std::fmt::Write;

use serde_json::Value;

use super::layout::PoolingMode;

/// What a card is written from. Everything here is also in the manifest and the report, so a card can be made again.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The model's title.
    pub name: String,
    /// The model the run started from, as it was asked for.
    pub base_model: String,
    /// The Hugging Face id of that model, where it has one.
    pub base_model_id: Option<String>,
    /// The licence of that model, as its own card names it.
    pub base_licence: Option<String>,
    /// Width of the embeddings.
    pub dimension: usize,
    /// `texts`, `pictures`, `texts and pictures` or `vectors`.
    pub reads: String,
    /// Tokens a text is cut to, where it reads texts.
    pub max_length: Option<usize>,
    /// Pooling.
    pub pooling: PoolingMode,
    /// Whether embeddings have length one.
    pub normalised: bool,
    /// How the data was understood, one sentence a file.
    pub data: Vec<String>,
    /// The specification with every default filled in.
    pub spec: Value,
    /// `report.json`.
    pub report: Value,
    /// Names and versions of what made the model.
    pub versions: Vec<(String, String)>,
}

/// Fields of the specification that say where things lie on the machine of the run, not what was done.
const LOCAL_FIELDS: [&str; 4] = ["output", "resume", "threads", "device"];

impl RunRecord {
    /// The card in Markdown, with the metadata block that model hubs read.
    pub fn card(&self) -> String {
        let mut card = String::new();
        self.write(&mut card).expect("writing to a string cannot fail: bug");
        card
    }

    fn write(&self, card: &mut String) -> std::fmt::Result {
        self.metadata(card)?;
        writeln!(card, "\n# {}\n", self.name)?;
        writeln!(
            card,
            "An embedding model: {} in, vectors of {} numbers out ({} pooling{}), compared by cosine similarity.{} It was \
             fine-tuned from `{}` with Finetuner.",
            self.reads,
            self.dimension,
            self.pooling.name(),
            if self.normalised { ", length one" } else { "" },
            self.max_length.map_or(String::new(), |limit| format!(" Texts are cut to {limit} tokens.")),
            self.base_model,
        )?;
        self.results(card)?;
        writeln!(card, "\n## Use\n")?;
        if let PoolingMode::Gem { p, eps } = self.pooling {
            writeln!(
                card,
                "Its pooling is the generalised mean `(mean of max(x, eps)^p)^(1/p)` with p = {p:.4}, which was learnt, and \
                 eps = {eps:e}. sentence-transformers and text-embeddings-inference do not have it and refuse this folder by the \
                 name of its `pooling_mode`; transformers loads the network below it. Finetuner reads all of it:\n"
            )?;
        }
        if self.reads == "vectors" {
            writeln!(
                card,
                "It is a perceptron over vectors that another model computed: `config.json` is its shape, `model.safetensors` its \
                 layers (`layers.N.weight`, `layers.N.bias`; `x W^T + b`, the activation between layers). \
                 sentence-transformers and transformers do not know it:\n"
            )?;
        }
        if self.is_of_sentence_transformers() {
            writeln!(card, "```python\nfrom sentence_transformers import SentenceTransformer\n")?;
            writeln!(card, "model = SentenceTransformer(\"path/to/this/folder\")")?;
            writeln!(card, "embeddings = model.encode([\"a text\", \"another one\"])\n```")?;
        } else {
            writeln!(
                card,
                "```\nfinetuner encode --model path/to/this/folder --input {} --output vectors.npy\n```",
                match self.reads.as_str() {
                    "texts" => "texts.txt",
                    "vectors" => "vectors.jsonl",
                    _ => "photos/",
                }
            )?;
        }
        if self.spec["lora"]["save"] == "adapter" {
            writeln!(card, "\nThis folder holds a LoRA adapter of `{}`; loading it needs `peft`.", self.base_model)?;
        }
        writeln!(card, "\n## Training\n")?;
        self.data.iter().try_for_each(|sentence| writeln!(card, "- Data: {sentence}"))?;
        self.settings(card)?;
        writeln!(card, "\n## Versions\n")?;
        self.versions.iter().try_for_each(|(name, version)| writeln!(card, "- {name} {version}"))?;
        writeln!(card, "\n## Licence\n")?;
        match &self.base_licence {
            Some(licence) => writeln!(card, "The base model's licence is `{licence}`; mind that of the training data."),
            None => writeln!(card, "The base model does not name its licence; mind it, and that of the training data."),
        }
    }

    /// Whether nothing but Finetuner reads the folder.
    fn is_ours(&self) -> bool {
        self.reads == "vectors" || matches!(self.pooling, PoolingMode::Gem { .. })
    }

    /// Whether sentence-transformers loads the folder as it is.
    fn is_of_sentence_transformers(&self) -> bool {
        self.reads == "texts" && !self.is_ours()
    }

    fn metadata(&self, card: &mut String) -> std::fmt::Result {
        let library = if self.is_ours() { "finetuner" } else { "sentence-transformers" };
        writeln!(card, "---\nlibrary_name: {library}\npipeline_tag: sentence-similarity\ntags:")?;
        if !self.is_ours() {
            writeln!(card, "- sentence-transformers")?;
        }
        writeln!(card, "- sentence-similarity\n- feature-extraction\n- finetuner")?;
        if let Some(id) = &self.base_model_id {
            writeln!(card, "base_model: {}", Value::from(id.as_str()))?; // a JSON string is a YAML string
        }
        if let Some(licence) = &self.base_licence {
            writeln!(card, "license: {}", Value::from(licence.as_str()))?;
        }
        writeln!(card, "---")
    }

    fn results(&self, card: &mut String) -> std::fmt::Result {
        let metrics = &self.report["metrics"];
        let Some(finetuned) = metrics["finetuned"].as_object().filter(|values| !values.is_empty()) else {
            return writeln!(card, "\n## Results\n\nNothing was evaluated in this run, so nothing is claimed.");
        };
        writeln!(card, "\n## Results\n\nAt {} results per query:\n", metrics["k"])?;
        writeln!(card, "| metric | pretrained | finetuned | delta | 95 % interval |\n|---|---|---|---|---|")?;
        for (name, value) in finetuned {
            let Some(value) = value.as_f64() else { continue };
            let interval = match metrics["interval"][name].as_array().map(|bounds| (bounds.first(), bounds.get(1))) {
                Some((Some(low), Some(high))) => format!("{} to {}", number(low, true), number(high, true)),
                _ => "–".into(),
            };
            let (before, delta) = (&metrics["pretrained"][name], &metrics["delta"][name]);
            let (before, delta) = (number(before, false), number(delta, true));
            writeln!(card, "| {name} | {before} | {value:.4} | {delta} | {interval} |")?;
        }
        let queries = &self.report["queries"];
        if let (Some(improved), Some(worsened)) = (count(&queries["improved"]), count(&queries["worsened"])) {
            let unchanged = count(&queries["unchanged"]).unwrap_or(0);
            writeln!(card, "\nOf the queries {improved} got better, {worsened} worse, {unchanged} stayed the same.")?;
        }
        Ok(())
    }

    fn settings(&self, card: &mut String) -> std::fmt::Result {
        writeln!(card, "\n| setting | value |\n|---|---|")?;
        for (field, value) in self.spec.as_object().into_iter().flatten() {
            let empty = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
            if empty || value.as_object().is_some_and(|map| map.is_empty()) || LOCAL_FIELDS.contains(&field.as_str()) {
                continue;
            }
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(card, "| {field} | `{}` |", value.replace('|', "\\|").replace(['\n', '`'], " "))?;
        }
        Ok(())
    }
}

/// A list's length, or a number as it is.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_array().map(|list| list.len() as u64))
}

fn number(value: &Value, signed: bool) -> String {
    match value.as_f64() {
        Some(value) if signed => format!("{value:+.4}"),
        Some(value) => format!("{value:.4}"),
        None => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> RunRecord {
        RunRecord {
            name: "first".into(),
            base_model: "all-MiniLM-L6-v2".into(),
            base_model_id: Some("sentence-transformers/all-MiniLM-L6-v2".into()),
            base_licence: Some("apache-2.0".into()),
            dimension: 384,
            reads: "texts".into(),
            max_length: Some(256),
            pooling: PoolingMode::Mean,
            normalised: true,
            data: vec!["pairs.csv: 10 pairs".into()],
            spec: json!({"loss": "NTXentLoss", "query_prompt": "a|b", "miner": null, "callbacks": [], "output": "/home/x"}),
            report: json!({
                "metrics": {
                    "k": 20,
                    "pretrained": {"mrr": 0.5},
                    "finetuned": {"mrr": 0.75},
                    "delta": {"mrr": 0.25},
                    "interval": {"mrr": [0.2, 0.3]},
                },
                "queries": {"improved": [1, 2], "worsened": 1, "unchanged": 7},
            }),
            versions: vec![("finetuner".into(), "0.1.0".into())],
        }
    }

    #[test]
    fn the_card_tells_what_was_measured_and_how() {
        let card = record().card();
        for line in [
            "base_model: \"sentence-transformers/all-MiniLM-L6-v2\"",
            "license: \"apache-2.0\"",
            "| mrr | 0.5000 | 0.7500 | +0.2500 | +0.2000 to +0.3000 |",
            "Of the queries 2 got better, 1 worse, 7 stayed the same.",
            "- Data: pairs.csv: 10 pairs",
            "| loss | `NTXentLoss` |",
            "| query_prompt | `a\\|b` |",
            "- finetuner 0.1.0",
        ] {
            assert!(card.lines().any(|found| found == line), "`{line}` is not in\n{card}");
        }
        assert!(!card.contains("/home/x") && !card.contains("miner") && !card.contains("callbacks"));
    }

    #[test]
    fn a_pooling_that_others_lack_is_named_and_nobody_else_is_told_to_load_it() {
        let card = RunRecord { pooling: PoolingMode::Gem { p: 3.25, eps: 1e-6 }, ..record() }.card();
        assert!(card.contains("(gem pooling, length one)") && card.contains("p = 3.2500"), "{card}");
        assert!(card.contains("eps = 1e-6") && card.contains("--input texts.txt"), "{card}");
        assert!(card.starts_with("---\nlibrary_name: finetuner\n"), "{card}");
        assert!(!card.contains("from sentence_transformers") && !card.contains("- sentence-transformers"), "{card}");
    }

    #[test]
    fn without_an_evaluation_the_card_claims_nothing() {
        let card = RunRecord { report: Value::Null, base_licence: None, ..record() }.card();
        assert!(card.contains("nothing is claimed") && !card.contains("license:"));
        assert!(card.contains("does not name its licence"));
    }
}

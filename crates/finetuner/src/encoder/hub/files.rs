//! Which files of a repository make a model.

use std::path::Path;

use crate::artifact::TOKENIZER_FILES;
use crate::artifact::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};

/// Files of a model that we use, beside its weights and its tokenizer's.
const FILES: [&str; 8] = [
    "config.json",
    "preprocessor_config.json",
    OPEN_CLIP_CONFIG,
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    ADAPTER_CONFIG,
    "README.md",
];

/// open_clip's own names; its repositories often hold the same model for transformers, too.
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
const OPEN_CLIP_WEIGHTS: &str = "open_clip_model.safetensors";

/// The files to download, weights last, so that a snapshot with weights has all the rest.
///
/// Taken from the root and from module folders such as `1_Pooling`; exports to other runtimes are left out.
pub(super) fn choose<'a>(names: &[&'a str]) -> std::result::Result<Vec<&'a str>, String> {
    let is_module = |folder: &str| folder.split_once('_').is_some_and(|(index, _)| index.parse::<u8>().is_ok());
    let file = |name: &'a str| match name.rsplit_once('/') {
        None => Some(("", name)),
        Some((folder, file)) if is_module(folder) && !folder.contains('/') => Some((folder, file)),
        Some(_) => None,
    };
    let mut small = Vec::new();
    let mut weights = Vec::new();
    for &name in names {
        let Some((folder, file)) = file(name) else { continue };
        let sibling = |other: &str| {
            names
                .iter()
                .any(|name| *name == if folder.is_empty() { other.to_owned() } else { format!("{folder}/{other}") })
        };
        if FILES.contains(&file) || TOKENIZER_FILES.contains(&file) {
            small.push(name);
        } else if ["model.safetensors", ADAPTER_WEIGHTS].contains(&file)
            || ((is_shard(file) || file == OPEN_CLIP_WEIGHTS) && !sibling("model.safetensors"))
        {
            weights.push(name);
        } else if file == "model.safetensors.index.json" && !sibling("model.safetensors") {
            small.push(name);
        }
    }
    if !names.iter().any(|name| name.ends_with("config.json")) {
        return Err("the repository holds no `config.json`, so it is not a model of transformers".into());
    }
    // A dense module alone does not make a model.
    let main = |name: &&str| !name.contains('/') || name.starts_with("0_");
    if !weights.iter().any(main) {
        let pickle = names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt"));
        let kind = if pickle { "only pickled weights, which can run code when they are opened" } else { "no weights" };
        return Err(format!(
            "the repository holds {kind}; look for a revision with `model.safetensors` (often `@refs/pr/…`), or save the \
             model as safetensors with transformers' `save_pretrained` and name that folder"
        ));
    }
    weights.sort_by_key(main);
    Ok([small, weights].concat())
}

fn is_shard(file: &str) -> bool {
    file.starts_with("model-") && file.ends_with(".safetensors")
}

/// Whether a snapshot has a configuration and all its weights, a model's or an adapter's.
pub(super) fn is_complete(folder: &Path) -> bool {
    let whole = |folder: &Path| {
        let shards = || {
            let index = std::fs::read(folder.join("model.safetensors.index.json")).ok()?;
            let index: serde_json::Value = serde_json::from_slice(&index).ok()?;
            let mut shards = index["weight_map"].as_object()?.values();
            Some(shards.all(|shard| shard.as_str().is_some_and(|shard| folder.join(shard).is_file())))
        };
        let has = |names: [&str; 2]| names.iter().any(|name| folder.join(name).is_file());
        has(["config.json", OPEN_CLIP_CONFIG])
            && (has(["model.safetensors", OPEN_CLIP_WEIGHTS]) || shards().unwrap_or(false))
    };
    let adapter = [ADAPTER_CONFIG, ADAPTER_WEIGHTS].iter().all(|file| folder.join(file).is_file());
    adapter || whole(folder) || whole(&folder.join("0_Transformer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_from_the_root_and_module_folders_weights_last() {
        let sharded = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "config.json",
        ];
        let chosen = choose(&sharded).unwrap();
        assert_eq!(chosen[..2], ["model.safetensors.index.json", "config.json"]);
        assert_eq!(chosen.len(), 4);
        let dense =
            ["model.safetensors", "2_Dense/model.safetensors", "2_Dense/config.json", "config.json", "a/b/config.json"];
        assert_eq!(choose(&dense).unwrap()[2..], ["2_Dense/model.safetensors", "model.safetensors"]);
        let adapter = ["README.md", "adapter_model.safetensors", "adapter_config.json"];
        assert_eq!(choose(&adapter).unwrap(), ["README.md", "adapter_config.json", "adapter_model.safetensors"]);
        assert!(choose(&["config.json", "pytorch_model.bin"]).unwrap_err().contains("pickled"));
        assert!(choose(&["config.json", "2_Dense/model.safetensors"]).unwrap_err().contains("no weights"));
        assert!(choose(&["data.csv"]).unwrap_err().contains("config.json"));
    }
}

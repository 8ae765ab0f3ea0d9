//! Short names of well-known models: what `finetuner models` lists.

use crate::error::nearest;

/// A short name and the model behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The short name.
    pub name: &'static str,
    /// The repository on the Hugging Face hub.
    pub repository: &'static str,
    /// The `model_type` of its configuration.
    pub family: &'static str,
    /// Width of the embeddings.
    pub dimension: usize,
    /// What it is good for, in one line.
    pub description: &'static str,
}

const fn alias(
    name: &'static str,
    repository: &'static str,
    family: &'static str,
    dimension: usize,
    description: &'static str,
) -> Alias {
    Alias { name, repository, family, dimension, description }
}

/// Every alias: small English models first, then larger and multilingual ones, plain language models, then texts with
/// pictures and pictures alone.
#[rustfmt::skip] // a table
pub const ALIASES: &[Alias] = &[
    alias("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "bert", 384, "English; small and fast, the usual first choice"),
    alias("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2", "bert", 384, "English; twelve layers of the same"),
    alias("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2", "mpnet", 768, "English; the best of its family"),
    alias("multi-qa-MiniLM-L6-cos-v1", "sentence-transformers/multi-qa-MiniLM-L6-cos-v1", "bert", 384, "English; small, made for question search"),
    alias("multi-qa-mpnet-base-dot-v1", "sentence-transformers/multi-qa-mpnet-base-dot-v1", "mpnet", 768, "English; question search by dot product"),
    alias("all-distilroberta-v1", "sentence-transformers/all-distilroberta-v1", "roberta", 768, "English; six layers"),
    alias("sbert-base-en", "sentence-transformers/msmarco-distilbert-base-v3", "distilbert", 768, "English; web search, Jina Finetuner's default"),
    alias("e5-small-v2", "intfloat/e5-small-v2", "bert", 384, "English; prompts `query: ` and `passage: `"),
    alias("e5-base-v2", "intfloat/e5-base-v2", "bert", 768, "English; prompts `query: ` and `passage: `"),
    alias("e5-large-v2", "intfloat/e5-large-v2", "bert", 1024, "English; prompts `query: ` and `passage: `"),
    alias("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5", "bert", 384, "English; strong for its size"),
    alias("bge-base-en-v1.5", "BAAI/bge-base-en-v1.5", "bert", 768, "English; strong general retrieval"),
    alias("bge-large-en-v1.5", "BAAI/bge-large-en-v1.5", "bert", 1024, "English; large"),
    alias("gte-small", "thenlper/gte-small", "bert", 384, "English; small"),
    alias("gte-base", "thenlper/gte-base", "bert", 768, "English; general"),
    alias("gte-large", "thenlper/gte-large", "bert", 1024, "English; large"),
    alias("jina-embedding-t-en-v1", "jinaai/jina-embedding-t-en-v1", "bert", 312, "English; tiny"),
    alias("multilingual-e5-small", "intfloat/multilingual-e5-small", "bert", 384, "about 100 languages; prompts `query: ` and `passage: `"),
    alias("multilingual-e5-base", "intfloat/multilingual-e5-base", "xlm-roberta", 768, "about 100 languages; prompts `query: ` and `passage: `"),
    alias("multilingual-e5-large", "intfloat/multilingual-e5-large", "xlm-roberta", 1024, "about 100 languages; prompts `query: ` and `passage: `"),
    alias("bge-m3", "BAAI/bge-m3", "xlm-roberta", 1024, "more than 100 languages; texts up to 8,192 tokens"),
    alias("paraphrase-multilingual-MiniLM-L12-v2", "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "bert", 384, "50 languages; small"),
    alias("paraphrase-multilingual-mpnet-base-v2", "sentence-transformers/paraphrase-multilingual-mpnet-base-v2", "xlm-roberta", 768, "50 languages"),
    alias("distiluse-base-multi", "sentence-transformers/distiluse-base-multilingual-cased-v1", "distilbert", 512, "15 languages; with a dense module"),
    alias("bert-base-cased", "google-bert/bert-base-cased", "bert", 768, "English language model, not yet an embedding model"),
    alias("bert-base-uncased", "google-bert/bert-base-uncased", "bert", 768, "English language model, lowercased"),
    alias("bert-base-en", "google-bert/bert-base-cased", "bert", 768, "Jina Finetuner's name of `bert-base-cased`"),
    alias("bert-base-multi", "google-bert/bert-base-multilingual-cased", "bert", 768, "104 languages, language model"),
    alias("distilbert-base-uncased", "distilbert/distilbert-base-uncased", "distilbert", 768, "English language model, six layers"),
    alias("roberta-base", "FacebookAI/roberta-base", "roberta", 768, "English language model"),
    alias("xlm-roberta-base", "FacebookAI/xlm-roberta-base", "xlm-roberta", 768, "100 languages, language model"),
    alias("mpnet-base", "microsoft/mpnet-base", "mpnet", 768, "English language model"),
    alias("clip-base-en", "openai/clip-vit-base-patch32", "clip", 512, "texts and pictures; Jina Finetuner's name of CLIP ViT-B/32"),
    alias("clip-base-16", "openai/clip-vit-base-patch16", "clip", 512, "texts and pictures; smaller patches"),
    alias("clip-large-en", "openai/clip-vit-large-patch14", "clip", 768, "texts and pictures; CLIP ViT-L/14"),
    alias("clip-base-multi", "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k", "open_clip", 512, "texts of 100 languages and pictures"),
    alias("clip-ViT-B-32", "sentence-transformers/clip-ViT-B-32", "clip", 512, "texts and pictures; as sentence-transformers saves it"),
    alias("clip-ViT-B-32-multilingual-v1", "sentence-transformers/clip-ViT-B-32-multilingual-v1", "distilbert", 512, "50 languages, into the space of `clip-ViT-B-32`, which as `image_model` reads the pictures"),
    alias("siglip-base", "google/siglip-base-patch16-224", "siglip", 768, "texts and pictures; trained with a sigmoid loss"),
    alias("resnet-base", "timm/resnet50.tv_in1k", "resnet", 2048, "pictures; Jina Finetuner's name of ResNet-50"),
    alias("resnet-large", "timm/resnet152.tv_in1k", "resnet", 2048, "pictures; Jina Finetuner's name of ResNet-152"),
    alias("resnet18", "timm/resnet18.tv_in1k", "resnet", 512, "pictures; small"),
    alias("resnet50", "timm/resnet50.a1_in1k", "resnet", 2048, "pictures; a newer recipe of the same network"),
    alias("resnet101", "timm/resnet101.tv_in1k", "resnet", 2048, "pictures"),
    alias("resnet152", "timm/resnet152.tv_in1k", "resnet", 2048, "pictures"),
    alias("mobilenet-v2", "timm/mobilenetv2_100.ra_in1k", "mobilenet", 1280, "pictures; small and fast"),
    alias("efficientnet-base", "timm/efficientnet_b4.ra2_in1k", "efficientnet", 1792, "pictures; Jina Finetuner's name of EfficientNet B4"),
    alias("efficientnet-large", "timm/tf_efficientnet_b7.ra_in1k", "efficientnet", 2560, "pictures; Jina Finetuner's name of EfficientNet B7"),
    alias("efficientnet-b0", "timm/efficientnet_b0.ra_in1k", "efficientnet", 1280, "pictures; the smallest of its family"),
    alias("vit-base", "google/vit-base-patch16-224-in21k", "vit", 768, "pictures; a vision transformer"),
    alias("dinov2-small", "facebook/dinov2-small", "dinov2", 384, "pictures; trained without labels, strong for similarity"),
    alias("dinov2-base", "facebook/dinov2-base", "dinov2", 768, "pictures; trained without labels, strong for similarity"),
];

/// Names of Jina Finetuner whose kind of model is not in this version: T5 and mesh models.
const NOT_HERE: &[&str] =
    &["jina-embedding-s-en-v1", "jina-embedding-b-en-v1", "jina-embedding-l-en-v1", "pointnet-base"];

/// The alias of this name, in whatever case it is written.
pub fn find(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name.eq_ignore_ascii_case(name))
}

/// Why a name is no model, with the nearest ones.
pub fn unknown(name: &str) -> String {
    if NOT_HERE.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return "is a kind of model that is not in this version; `finetuner models` lists what is".into();
    }
    let known = ALIASES.iter().map(|alias| alias.name).chain(["mini", "mlp"]);
    let hint = nearest(name, known);
    let hint = if hint.starts_with(", did") { hint } else { ", see `finetuner models`".into() };
    format!("is neither a folder, an alias nor a repository id such as `organisation/name`{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_is_filled_in() {
        for (position, alias) in ALIASES.iter().enumerate() {
            assert_eq!(ALIASES.iter().position(|other| other.name.eq_ignore_ascii_case(alias.name)), Some(position));
            assert_eq!(alias.repository.split('/').count(), 2, "{}", alias.name);
            assert!(alias.dimension >= 100 && !alias.description.is_empty() && !alias.family.is_empty());
        }
    }

    #[test]
    fn an_alias_is_found_in_any_case() {
        assert_eq!(find("ALL-minilm-l6-v2").unwrap().repository, "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(find("all-MiniLM"), None);
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one_or_the_way_to_the_list() {
        assert!(unknown("bert-base-case").contains("did you mean `bert-base-cased`"));
        assert!(unknown("something else entirely").contains("finetuner models"));
        assert!(unknown("pointnet-base").contains("not in this version"));
    }
}

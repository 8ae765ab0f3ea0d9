//! `mini`, the encoder inside the binary; `mini/README.md` says how it was made and how good it is.

use crate::artifact::ModelFolder;
use crate::error::Result;

#[cfg(feature = "mini")]
pub(crate) fn open() -> Result<ModelFolder> {
    use crate::artifact::ModelFiles;

    macro_rules! embedded {
        ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../../mini/", $name)) as &[u8])),*] };
    }
    const FILES: &[(&str, &[u8])] = embedded![
        "config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    ModelFolder::read(ModelFiles::Embedded { name: super::source::MINI, files: FILES })
}

#[cfg(not(feature = "mini"))]
pub(crate) fn open() -> Result<ModelFolder> {
    let problem = "this build is without the embedded model (feature `mini`); name a folder or a repository";
    Err(crate::Error::model(super::source::MINI, problem))
}

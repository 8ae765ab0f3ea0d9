//! What the environment says about the hub: the variables of `huggingface_hub`.

use std::path::PathBuf;

use super::Hub;
use crate::error::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// An access token. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; space around it is dropped.
    pub fn new(secret: &str) -> Self {
        Token(secret.trim().to_owned())
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// The hub that these variables describe.
pub(super) fn hub(variable: impl Fn(&str) -> Option<String>) -> Result<Hub> {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| path("HOME").or_else(std::env::home_dir).map(|home| home.join(".cache/huggingface")));
    let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
    let Some(cache) = cache.or_else(|| home.as_ref().map(|home| home.join("hub"))) else {
        let problem = "there is no home folder for the cache; set HF_HOME".into();
        return Err(Error::Download { url: endpoint, problem });
    };
    let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
        let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))?;
        std::fs::read_to_string(file).ok().filter(|token| !token.trim().is_empty())
    });
    let set =
        |name: &str| variable(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()));
    let hub = Hub::new(&endpoint, cache).token(token.as_deref().map(Token::new));
    Ok(if set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE") { hub.offline() } else { hub })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Hub {
        hub(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())).unwrap()
    }

    #[test]
    fn variables_are_honoured_in_the_order_of_huggingface_hub() {
        let plain = with(&[("HOME", "/h")]);
        assert_eq!((&*plain.endpoint, plain.cache), (ENDPOINT, PathBuf::from("/h/.cache/huggingface/hub")));
        assert!(plain.token.is_none() && !plain.offline);
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")]).cache, PathBuf::from("/f/hub"));
        let all = with(&[
            ("HF_HOME", "/f"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_HUB_OFFLINE", "TRUE"),
        ]);
        assert_eq!((&*all.endpoint, all.cache, all.offline), ("http://mirror", PathBuf::from("/c"), true));
        assert!(!with(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_token_is_found_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let hub = with(&[("HF_HOME", home)]);
        assert_eq!(hub.token, Some(Token::new("hf_file")));
        assert!(!format!("{hub:?}").contains("hf_file"));
        assert_eq!(with(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable")]).token, Some(Token::new("hf_variable")));
    }
}

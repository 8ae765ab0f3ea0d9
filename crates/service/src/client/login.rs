//! A server's address and a key, kept in a file that only its user reads.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use finetuner::Error as LibraryError;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// Where to go and how to be known there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// As in `http://localhost:7700`.
    pub server: String,
    /// A key.
    pub token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Login {
    /// The file: `FINETUNER_LOGIN`, or `finetuner/login.json` where settings of this user are kept.
    ///
    /// # Errors
    /// [`Error::Login`] if the environment names no such place.
    pub fn path(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let settings =
            || set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config"))).or_else(|| set("APPDATA"));
        let file = set("FINETUNER_LOGIN").or_else(|| Some(settings()?.join("finetuner").join("login.json")));
        file.ok_or_else(|| Error::Login("no place to keep a login: set `HOME`, or `FINETUNER_LOGIN` to a file".into()))
    }

    /// Where to go: to `server`, else where somebody has logged in to, under the key in `FINETUNER_TOKEN`, else the stored
    /// one; `None` where no server is named and nobody has logged in.
    ///
    /// # Errors
    /// [`Error::Login`] if there is no key for `server`, else as [`Login::load`].
    pub fn find(server: Option<&str>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>> {
        let stored = match Login::path(&variable) {
            Ok(path) => Login::load(&path)?,
            Err(_) => None,
        };
        let token = variable("FINETUNER_TOKEN").and_then(|token| token.into_string().ok());
        let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
        Ok(Some(match (server, stored, token) {
            (Some(server), _, Some(token)) => Login { server: server.to_owned(), token },
            (None, Some(stored), Some(token)) => Login { token, ..stored },
            (None, Some(stored), None) => stored,
            (Some(server), Some(stored), None) if same(server, &stored.server) => stored,
            (Some(server), _, None) => {
                let advice = format!("log in with `finetuner login {server}`, or set FINETUNER_TOKEN");
                return Err(Error::Login(format!("there is no login for `{server}`; {advice}")));
            }
            (None, None, _) => return Ok(None),
        }))
    }

    /// Reads a stored login; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Login`] if the file is damaged, [`Error::Local`] if it cannot be read.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LibraryError::io("read", path)(error).into()),
        };
        let damaged = |error| Error::Login(format!("`{}` is damaged ({error}); log in again", path.display()));
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Stores the login so that only this user reads it.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(LibraryError::io("create", folder))?;
        // Temporary files are readable by this user only, and keep that when they are renamed.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(LibraryError::io("create a file in", folder))?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|error| LibraryError::io("write", path)(error.into()))?;
        file.flush().map_err(LibraryError::io("write", path))?;
        file.persist(path).map_err(|error| LibraryError::io("create", path)(error.error))?;
        Ok(())
    }

    /// Forgets a stored login; gives whether there was one.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn remove(path: &Path) -> Result<bool> {
        match std::fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LibraryError::io("remove", path)(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings/login.json");
        let login = Login { server: "http://localhost:7700".into(), token: "ft_x".into() };
        assert_eq!(Login::load(&path).unwrap(), None);
        login.save(&path).unwrap();
        assert_eq!(Login::load(&path).unwrap(), Some(login.clone()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!format!("{login:?}").contains("ft_x"));
        assert!(Login::remove(&path).unwrap() && !Login::remove(&path).unwrap());
    }

    #[test]
    fn a_server_is_the_named_one_else_the_stored_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login.json");
        let find = |server: Option<&str>, token: Option<&'static str>| {
            Login::find(server, |asked| match asked {
                "FINETUNER_LOGIN" => Some(path.clone().into()),
                "FINETUNER_TOKEN" => token.map(Into::into),
                _ => None,
            })
        };
        let login = |server: &str, token: &str| Some(Login { server: server.into(), token: token.into() });
        assert_eq!(find(None, None).unwrap(), None);
        assert_eq!(find(None, Some("ft_e")).unwrap(), None);
        login("http://a", "ft_s").unwrap().save(&path).unwrap();
        assert_eq!(find(None, None).unwrap(), login("http://a", "ft_s"));
        assert_eq!(find(Some("http://a/"), None).unwrap(), login("http://a", "ft_s"));
        assert_eq!(find(None, Some("ft_e")).unwrap(), login("http://a", "ft_e"));
        assert_eq!(find(Some("http://b"), Some("ft_e")).unwrap(), login("http://b", "ft_e"));
        assert!(find(Some("http://b"), None).unwrap_err().to_string().contains("finetuner login http://b"));
    }

    #[test]
    fn the_place_follows_the_environment() {
        let of = |name: &'static str, value: &'static str| {
            Login::path(move |asked| (asked == name).then(|| value.into())).map(|path| path.display().to_string())
        };
        assert_eq!(of("HOME", "/home/a").unwrap(), "/home/a/.config/finetuner/login.json");
        assert_eq!(of("FINETUNER_LOGIN", "/x").unwrap(), "/x");
        assert!(of("PATH", "/bin").is_err());
    }
}

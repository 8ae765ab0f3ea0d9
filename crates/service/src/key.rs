//! Bearer keys: recognisable, shown once, stored as a keyed hash.
//!
//! ```text
//! ft_01jd3v9k3w7c8q2m6n5p4r1s0t_<64 hexadecimal digits, 256 random bits>
//! ```
//! The first part finds the row, the second proves. So many random bits need no slow hash; the pepper, which lies beside
//! the database and not in it, makes a stolen table worthless.

use std::io::Write;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use ulid::Ulid;

use crate::error::{Error, Result};
use crate::settings::Secret;

const PREFIX: &str = "ft";
const PEPPER_BYTES: usize = 32;

/// What every hash of this server is keyed with.
pub(crate) struct Pepper(Vec<u8>);

/// A new key: its id and hash to store, its token to show.
pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) hash: String,
    pub(crate) token: Secret,
}

impl Pepper {
    /// Reads the pepper, or makes one that only this user can read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) if bytes.len() == PEPPER_BYTES => return Ok(Pepper(bytes)),
            Ok(_) => {
                return Err(Error::Settings(format!(
                    "`{}` is damaged: it holds the secret that keys are checked with; restore it from a backup, or remove it \
                     and make new keys",
                    path.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
        let mut bytes = vec![0; PEPPER_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let folder = path.parent().unwrap_or(Path::new("."));
        // Temporary files are readable by this user only, and keep that when they are renamed.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("create a file in", folder))?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::io("write", path))?;
        file.persist(path).map_err(|error| Error::io("create", path)(error.error))?;
        Ok(Pepper(bytes))
    }

    /// Makes a key.
    pub(crate) fn mint(&self) -> Result<Minted> {
        let id = Ulid::generate().to_string().to_lowercase();
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let token = format!("{PREFIX}_{id}_{}", hexadecimal(&secret));
        Ok(Minted { id: format!("key-{id}"), hash: self.hash(&token)?, token: Secret(token) })
    }

    /// The id of the row that a token may belong to.
    pub(crate) fn id(token: &str) -> Option<String> {
        let mut parts = token.split('_');
        let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let shaped = prefix == PREFIX && id.len() == 26 && secret.len() == 64 && parts.next().is_none();
        shaped.then(|| format!("key-{id}"))
    }

    /// Whether a token is the one that was hashed, in a time that does not depend on where they differ.
    pub(crate) fn matches(&self, token: &str, hash: &str) -> Result<bool> {
        Ok(self.hash(token)?.as_bytes().ct_eq(hash.as_bytes()).into())
    }

    /// What is stored of a secret.
    pub(crate) fn hash(&self, token: &str) -> Result<String> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(hexadecimal(&mac.chain_update(token).finalize().into_bytes()))
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_own_token_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pepper");
        let pepper = Pepper::open(&path).unwrap();
        let (one, other) = (pepper.mint().unwrap(), pepper.mint().unwrap());
        assert!(pepper.matches(&one.token.0, &one.hash).unwrap());
        assert!(!pepper.matches(&other.token.0, &one.hash).unwrap());
        assert_eq!(Pepper::id(&one.token.0), Some(one.id));
        assert!(Pepper::open(&path).unwrap().matches(&one.token.0, &one.hash).unwrap(), "read again");
        std::fs::remove_file(&path).unwrap();
        assert!(!Pepper::open(&path).unwrap().matches(&one.token.0, &one.hash).unwrap(), "another pepper");
    }

    #[test]
    fn what_is_not_shaped_like_a_key_has_no_id() {
        for token in ["", "ft_", "ft__", "gh_01jd3v9k3w7c8q2m6n5p4r1s0t_x", "ft_01jd3v9k3w7c8q2m6n5p4r1s0t_x_y", "é"] {
            assert_eq!(Pepper::id(token), None, "{token}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_this_user_reads_the_pepper() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Pepper::open(&folder.path().join("pepper")).unwrap();
        let mode = std::fs::metadata(folder.path().join("pepper")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

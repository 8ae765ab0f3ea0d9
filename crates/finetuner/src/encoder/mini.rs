//! stub
use crate::artifact::ModelFolder;
use crate::error::{Error, Result};

pub(crate) fn open() -> Result<ModelFolder> {
    Err(Error::model("mini", "not in this build"))
}

//! The native half of `import finetuner`: what the facade package in `python/finetuner` calls.
//!
//! What goes back and forth is small: texts, numbers, JSON for what has structure. Nothing here prints, keeps state or
//! decides for the user. Whatever takes long runs without the interpreter's lock and is left when Python has a signal to
//! handle.
//!
//! Modules in reading order:
//! 1. `error`: errors as the classes of `finetuner.exception`
//! 2. `work`: long work that a Ctrl-C reaches
//! 3. `spec`: a call's arguments to a spec
//! 4. `training`: a run in this process
//! 5. `model`: items to embeddings, and what is measured with them
//! 6. `synthesis`: training data of queries and texts
//! 7. `client`: a server

mod error;
mod work;
mod spec;
mod training;
mod model;
mod synthesis;
mod client;

use pyo3::pymodule;

/// The native half of `finetuner`; see `finetuner` itself.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::client::{Client, Events, log_in, login_file, remove_login, save_login, stored_login};
    #[pymodule_export]
    use crate::model::{Model, aliases};
    #[pymodule_export]
    use crate::spec::{field_names, report_text, resolve};
    #[pymodule_export]
    use crate::synthesis::synthesize;
    #[pymodule_export]
    use crate::training::{Stop, claim, is_claimed, train};
}

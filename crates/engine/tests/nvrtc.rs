//! NVIDIA's own compiler takes every kernel. It needs no GPU, only the library NVRTC, whose folder `LD_LIBRARY_PATH` names;
//! skipped, with the reason printed, where there is none,
//! unless `FINETUNER_NEEDS_NVRTC` is set.

#![allow(clippy::print_stderr, reason = "why a test was left out")]

use engine::Error;

#[test]
fn every_kernel_compiles_for_every_architecture() {
    for architecture in ["sm_80", "sm_90"] {
        match engine::cuda::compile_for(architecture) {
            Err(Error::Unavailable { reason, .. }) => {
                assert!(std::env::var_os("FINETUNER_NEEDS_NVRTC").is_none(), "{reason}");
                return eprintln!("skipped: {reason}");
            }
            Err(error) => panic!("{error}"),
            Ok(files) => {
                assert!(files.len() >= 8 && files.iter().all(|(_, bytes)| *bytes > 1000), "{architecture}: {files:?}");
            }
        }
    }
}

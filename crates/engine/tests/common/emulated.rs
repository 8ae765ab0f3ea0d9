//! A GPU on the processor, for machines that have none: `tests/cuda/driver/` in place of NVIDIA's libraries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The libraries that the engine looks for.
const LIBRARIES: [&str; 5] = ["cuda", "nvrtc", "cublasLt", "nccl", "nvidia-ml"];

/// Builds and loads the emulated libraries, once. Afterwards [`engine::Cuda`] opens device 0 of one emulated GPU, or
/// of as many as EMULATED_GPUS says.
///
/// # Errors
/// Why it cannot be: no C++ compiler, or none that takes the source.
pub(crate) fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let folder = build(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
            for name in LIBRARIES {
                let path = folder.join(format!("lib{name}.so"));
                // SAFETY: our own library, which does nothing when it is loaded. It stays: whoever looks for a library
                // of its name finds this one.
                let library = unsafe { libloading::Library::new(&path) }.map_err(|error| error.to_string())?;
                std::mem::forget(library);
            }
            Ok(())
        })
        .clone()
}

/// That there is a GPU: a real one, or the emulated one where there is none.
///
/// # Errors
/// Why there is neither.
pub(crate) fn gpu_or_emulated() -> Result<(), String> {
    engine::cuda::found()
        .map(drop)
        .or_else(|reason| load().map_err(|emulated| format!("{reason}; and none is emulated: {emulated}")))
}

/// Builds the libraries, unless they are there already, and gives their folder.
fn build(target: &Path) -> Result<PathBuf, String> {
    if !cfg!(target_os = "linux") {
        return Err("a GPU is emulated on Linux only".into());
    }
    // From this crate or one beside it.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/cuda");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let folder = target.join(format!("emulated-{:016x}", fingerprint(&sources, &compiler)?));
    // Kernels that were compiled for another emulator are not taken.
    // SAFETY: called before any other thread of the test looks at the environment.
    unsafe { std::env::set_var("XDG_CACHE_HOME", folder.join("cache")) };
    if folder.join("done").exists() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for name in LIBRARIES {
        let built = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-fPIC", "-shared"])
            .arg(format!("-DCOMPILER=\"{compiler}\""))
            .arg(format!("-DFOLDER=\"{}\"", sources.display()))
            .arg(format!("-Wl,-soname,lib{name}.so{}", if name == "nvidia-ml" { ".1" } else { "" }))
            .arg(sources.join("driver/driver.cpp"))
            .arg("-o")
            .arg(folder.join(format!("lib{name}.so")))
            .arg("-ldl")
            .output()
            .map_err(|error| format!("no C++ compiler `{compiler}`: {error}"))?;
        if !built.status.success() {
            return Err(String::from_utf8_lossy(&built.stderr).into_owned());
        }
    }
    std::fs::write(folder.join("done"), "").map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Changes with every source of the emulator.
fn fingerprint(sources: &Path, compiler: &str) -> Result<u64, String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (compiler, sources).hash(&mut hasher);
    for name in ["emulator.hpp", "tensor_core.hpp", "driver/driver.cpp"] {
        std::fs::read(sources.join(name)).map_err(|error| error.to_string())?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

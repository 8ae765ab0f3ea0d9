//! The kernels for GPUs, compiled for the processor with `cuda/emulator.hpp` and compared with plain loops. Where there is
//! no C++ compiler they are skipped with a word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles one file; what the compiler said if it did not.
fn compile(compiler: &str, source: &Path, program: &Path, flags: &[&str]) -> Result<(), String> {
    let output = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-g1", "-Wno-unknown-pragmas"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(program)
        .output()
        .map_err(|error| error.to_string())?;
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn kernels_agree_with_plain_loops() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let trial = target.join("trial.cpp");
    std::fs::write(&trial, "int main() { return 0; }\n").unwrap();
    let asked = std::env::var("CXX").ok();
    let compilers = asked.as_deref().into_iter().chain(["c++", "g++", "clang++"]);
    let works = |compiler: &str, flags: &[&str]| compile(compiler, &trial, &target.join("trial"), flags).is_ok();
    let Some(compiler) = compilers.into_iter().find(|compiler| cfg!(unix) && works(compiler, &[])) else {
        return eprintln!("skipped: there is no C++ compiler (CXX, c++, g++, clang++)");
    };
    let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let flags: &[&str] = if works(compiler, &sanitizers) { &sanitizers } else { &[] };
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    sources.sort();
    assert!(!sources.is_empty(), "no tests in {}", folder.display());
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = sources.iter().map(|source| scope.spawn(|| run(compiler, source, &target, flags))).collect();
        runs.into_iter().filter_map(|run| run.join().unwrap().err()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Compiles and runs one file of tests; what went wrong.
fn run(compiler: &str, source: &Path, target: &Path, flags: &[&str]) -> Result<(), String> {
    let name = source.file_stem().unwrap().to_string_lossy().into_owned();
    let program = target.join(&name);
    compile(compiler, source, &program, flags).map_err(|log| format!("{name} does not compile:\n{log}"))?;
    let output = Command::new(&program).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{name}: {}\n{said}{complained}", output.status))
}

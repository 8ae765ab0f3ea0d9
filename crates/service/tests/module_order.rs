//! A module uses only those above it in `lib.rs`, and the list there is in that order.

use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_module_uses_only_the_modules_above_it() -> std::io::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = std::fs::read_to_string(source.join("lib.rs"))?;
    let declared = library.lines().filter_map(|line| line.strip_suffix(';')?.split_once("mod ").map(|(_, name)| name));
    let order: Vec<&str> = declared.collect();
    let listed = library.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(". `")?.1.split_once("`:"));
    assert_eq!(listed.map(|(name, _)| name).collect::<Vec<_>>(), order);

    let place = |name: &str| order.iter().position(|module| *module == name);
    for path in files(&source) {
        let inside = path.strip_prefix(&source).unwrap_or(&path).with_extension("");
        let top = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let own = top.as_deref().and_then(place);
        let text = std::fs::read_to_string(&path)?;
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                assert!(place(&name) <= own || own.is_none(), "{}: {line}", path.display());
            }
        }
    }
    Ok(())
}

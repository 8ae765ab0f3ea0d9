//! The house rules that the compiler does not know: a module uses only those above it in `lib.rs`, and files stay short.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own sources fails")]

use std::path::{Path, PathBuf};

/// Lines above which a file is split.
const LONGEST: usize = 800;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file of the library, with the top module it belongs to.
fn files() -> Vec<(PathBuf, String)> {
    let (mut files, mut folders) = (Vec::new(), vec![source()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(source()).unwrap();
                let top = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                files.push((path.clone(), top.trim_end_matches(".rs").to_owned()));
            }
        }
    }
    files.sort();
    files
}

/// The modules in the order of `lib.rs`.
fn modules(library: &str) -> Vec<String> {
    let name = |line: &str| Some(line.trim().strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    library.lines().filter_map(name).collect()
}

/// The names after `crate::` in the code of a file, tests and comments left out, each with its line.
fn uses(text: &str) -> Vec<(usize, String)> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let code = code.split("#[cfg(test)]\n#[path").next().unwrap_or(code);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = &code[..at];
        let comment = before.rsplit('\n').next().is_some_and(|line| line.contains("//"));
        // `$crate` is a macro's own crate, and `engine_crate::` would be another name.
        if comment || before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let after = &code[at + "crate::".len()..];
        let names = match after.strip_prefix('{') {
            Some(group) => outer_names(group),
            None => vec![first_name(after)],
        };
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// The first names of the items of `{a::b, c::{d, e}}`, given what follows the bracket.
fn outer_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn a_module_uses_only_the_modules_above_it() {
    let order = modules(&std::fs::read_to_string(source().join("lib.rs")).unwrap());
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for (path, top) in files().iter().filter(|(path, _)| !path.to_string_lossy().ends_with("tests.rs")) {
        let Some(own) = place(top) else {
            assert_eq!(top, "lib", "{} belongs to no module of lib.rs", path.display());
            continue;
        };
        for (line, used) in uses(&std::fs::read_to_string(path).unwrap()) {
            if used != "error" && place(&used).is_some_and(|used| used > own) {
                wrong.push(format!("{}:{line}: `{top}` uses `{used}`, which stands below it", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long = files().into_iter().filter_map(|(path, _)| {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines", path.display()))
    });
    assert_eq!(long.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn lib_rs_lists_its_modules_in_the_order_it_declares_them() {
    let library = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let listed = library.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once("[`")?.1.split_once("`]"));
    assert_eq!(listed.map(|(name, _)| name).collect::<Vec<_>>(), modules(&library));
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "use crate::spec::{Options, data};\nuse crate::{\n    event, train::{a, b},\n};\n// crate::optim\n\
                fn f(x: crate::tokens::Batch) {} // crate::encoder\nmycrate::evaluate\n\
                #[cfg(test)]\nmod tests { use crate::artifact; }\n";
    let names: Vec<(usize, String)> = uses(text);
    let expected = [(1, "spec"), (2, "event"), (2, "train"), (6, "tokens")];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
}

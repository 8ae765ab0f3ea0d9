//! The reference pages of `docs/reference` are written from the code: names from the tables, text from the
//! documentation of the structs, options from their fields. This test fails where a page is not what the code says;
//! `FINETUNER_WRITE_REFERENCE=1 cargo test -p finetuner --test reference` writes the pages anew.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use finetuner::spec::RunSpec;
use syn::{Expr, Fields, Item, ItemEnum, ItemStruct};

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)
}

/// Everything that the files of a folder define, tests left out.
#[derive(Default)]
struct Definitions {
    structs: BTreeMap<String, ItemStruct>,
    enums: BTreeMap<String, ItemEnum>,
    /// What a loss learns from: the last word of `fn needs`, where that is a constant.
    needs: BTreeMap<String, String>,
    /// Name, aliases and type of each line of the table.
    table: Vec<(String, Vec<String>, String)>,
}

impl Definitions {
    fn read(folder: &Path) -> Self {
        let mut found = Definitions::default();
        found.read_into(folder);
        found
    }

    fn read_into(&mut self, folder: &Path) {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self.read_into(&path);
                continue;
            }
            let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
            file.items.into_iter().for_each(|item| self.item(item));
        }
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Struct(item) => {
                self.structs.insert(item.ident.to_string(), item);
            }
            Item::Enum(item) => {
                self.enums.insert(item.ident.to_string(), item);
            }
            Item::Impl(item) if item.trait_.as_ref().is_some_and(|(_, path, _)| path.is_ident("Loss")) => {
                let syn::Type::Path(of) = &*item.self_ty else { return };
                let name = of.path.segments.last().unwrap().ident.to_string();
                for part in item.items {
                    let syn::ImplItem::Fn(function) = part else { continue };
                    if let (true, [syn::Stmt::Expr(Expr::Path(value), None)]) =
                        (function.sig.ident == "needs", &function.block.stmts[..])
                    {
                        self.needs.insert(name.clone(), value.path.segments.last().unwrap().ident.to_string());
                    }
                }
            }
            Item::Const(item) => {
                let Expr::Reference(reference) = *item.expr else { return };
                let Expr::Array(array) = *reference.expr else { return };
                self.table.extend(array.elems.iter().filter_map(line));
            }
            _ => {}
        }
    }
}

/// One line of a table of losses or miners: `entry::<Type>("Name", &["Alias"])`.
fn line(expression: &Expr) -> Option<(String, Vec<String>, String)> {
    let Expr::Call(call) = expression else { return None };
    let Expr::Path(function) = &*call.func else { return None };
    let segment = function.path.segments.last()?;
    let syn::PathArguments::AngleBracketed(generic) = &segment.arguments else { return None };
    let syn::GenericArgument::Type(syn::Type::Path(of)) = generic.args.first()? else { return None };
    let mut arguments = call.args.iter();
    let name = text(arguments.next()?)?;
    let aliases = match arguments.next() {
        Some(Expr::Reference(reference)) => match &*reference.expr {
            Expr::Array(array) => array.elems.iter().filter_map(text).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    Some((name, aliases, of.path.segments.last()?.ident.to_string()))
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// The lines of a documentation comment.
fn documentation(attributes: &[syn::Attribute]) -> Vec<String> {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let lines = lines.filter_map(|attribute| text(&attribute.meta.require_name_value().ok()?.value));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(&line).to_owned()).collect()
}

fn sentence(attributes: &[syn::Attribute]) -> String {
    documentation(attributes).join(" ").trim().to_owned()
}

/// Links to Rust items become plain code: the page stands outside of rustdoc.
fn without_links(text: &str) -> String {
    let text = text.replace("[`", "`").replace("`]", "`");
    let mut plain = String::new();
    let mut rest = &text[..];
    while let Some(at) = rest.find("`(") {
        let end = rest[at..].find(')').map_or(rest.len(), |end| at + end + 1);
        let target = &rest[at + 2..end.saturating_sub(1).max(at + 2)];
        plain.push_str(&rest[..=at]);
        if !target.contains("::") {
            plain.push_str(&rest[at + 1..end]);
        }
        rest = &rest[end..];
    }
    plain + rest
}

fn snake(name: &str) -> String {
    let mut words = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// What a field documents, apart from its default: the sentence that begins with `Default`.
fn option(field: &syn::Field, definitions: &Definitions) -> (String, String) {
    let mut meaning = sentence(&field.attrs);
    let optional = type_words(&field.ty).first().is_some_and(|word| word == "Option");
    let mut default = if optional { "none" } else { "required" }.to_owned();
    if let Some(at) = meaning.find("Default") {
        let rest = &meaning[at..];
        let end = rest.find(". ").map_or(rest.len(), |end| end + 1);
        let stated = rest["Default".len()..end].trim_start_matches(':').trim().trim_end_matches('.').to_owned();
        meaning = format!("{} {}", meaning[..at].trim(), meaning[at + end..].trim()).trim().to_owned();
        default = stated;
    }
    let named = definitions.enums.iter().find(|(name, item)| {
        let words = type_words(&field.ty);
        words.contains(name) && item.variants.iter().all(|variant| matches!(variant.fields, Fields::Unit))
    });
    if let Some((_, item)) = named {
        let values = item.variants.iter().map(|variant| {
            let explained = sentence(&variant.attrs);
            let explained = explained.trim_end_matches('.');
            format!("`{}`: {}", snake(&variant.ident.to_string()), explained)
        });
        let values: Vec<String> = values.collect();
        meaning = format!("{meaning} {}.", values.join("; ")).trim().to_owned();
    }
    (default, meaning)
}

/// The names in a type, as in `Option<Mode>`.
fn type_words(of: &syn::Type) -> Vec<String> {
    let syn::Type::Path(of) = of else { return Vec::new() };
    let mut words = Vec::new();
    for segment in &of.path.segments {
        words.push(segment.ident.to_string());
        if let syn::PathArguments::AngleBracketed(generic) = &segment.arguments {
            for argument in &generic.args {
                if let syn::GenericArgument::Type(inner) = argument {
                    words.extend(type_words(inner));
                }
            }
        }
    }
    words
}

fn cell(text: &str) -> String {
    without_links(text).replace('|', "\\|")
}

/// The section of one loss or miner.
fn section(page: &mut String, name: &str, aliases: &[String], of: &str, definitions: &Definitions) {
    let item = definitions.structs.get(of).unwrap_or_else(|| panic!("{name}: no struct {of}"));
    let lines = documentation(&item.attrs);
    let reference = lines.iter().any(|line| line.starts_with("Reference:"));
    assert!(reference, "{name}: its documentation names no `Reference:`");
    writeln!(page, "\n## {name}\n").unwrap();
    if !aliases.is_empty() {
        let aliases: Vec<String> = aliases.iter().map(|alias| format!("`{alias}`")).collect();
        writeln!(page, "Also {}.\n", aliases.join(", ")).unwrap();
    }
    writeln!(page, "{}", without_links(lines.join("\n").trim())).unwrap();
    let Fields::Named(fields) = &item.fields else { return };
    let public: Vec<_> = fields.named.iter().filter(|field| matches!(field.vis, syn::Visibility::Public(_))).collect();
    if public.is_empty() {
        return;
    }
    writeln!(page, "\n| option | default | meaning |\n|---|---|---|").unwrap();
    for field in public {
        let (default, meaning) = option(field, definitions);
        let name = field.ident.as_ref().unwrap();
        writeln!(page, "| `{name}` | {} | {} |", cell(&default), cell(&meaning)).unwrap();
    }
}

/// What a loss learns from, and the shapes that it sees.
fn inputs(needs: Option<&String>) -> &'static str {
    match needs.map(String::as_str) {
        Some("Labels") => "classes, pairs or triplets: rows `[rows, dimension]` with a label each",
        Some("Pairs") => "pairs, also with negatives: columns `[examples, dimension]`, row i of each belongs together",
        Some("Scores") => "scored pairs: two columns `[pairs, dimension]`, one score a pair",
        Some("Triplets") => "triplets: anchor, positive and negatives, `[examples, dimension]` each",
        Some(_) | None => "see its section",
    }
}

fn losses() -> String {
    let definitions = Definitions::read(&source("objective/loss"));
    let mut page = "# Losses\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n\
                    `--loss NAME --loss-options key=value,…`, or `loss` and `[loss_options]` in a run file.\n\n\
                    | loss | learns from |\n|---|---|\n"
        .to_owned();
    for (name, _, of) in &definitions.table {
        let anchor = name.to_lowercase().replace('.', "");
        writeln!(page, "| [{name}](#{anchor}) | {} |", inputs(definitions.needs.get(of))).unwrap();
    }
    for (name, aliases, of) in &definitions.table {
        section(&mut page, name, aliases, of, &definitions);
    }
    let names: Vec<&str> = definitions.table.iter().map(|(name, ..)| &name[..]).collect();
    assert_eq!(names, finetuner::objective::loss::names(), "the table as read and as compiled");
    page
}

fn miners() -> String {
    let definitions = Definitions::read(&source("objective/miner"));
    let mut page = "# Miners\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n\
                    `--miner NAME --miner-options key=value,…`, or `miner` and `[miner_options]` in a run file. A miner \
                    chooses the pairs or triplets of a batch that a loss sees; it needs labels.\n"
        .to_owned();
    for (name, aliases, of) in &definitions.table {
        section(&mut page, name, aliases, of, &definitions);
    }
    let names: Vec<&str> = definitions.table.iter().map(|(name, ..)| &name[..]).collect();
    assert_eq!(names, finetuner::objective::miner::names(), "the table as read and as compiled");
    page
}

fn fields() -> String {
    let mut page = "# Every field of a run\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n\
                    A field has one name in the run file, in Python and, with dashes, on the command line. Precedence: \
                    flag, environment, file, default.\n\n\
                    | field | flag | environment | type | default | meaning |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for field in RunSpec::FIELDS {
        let default = field.default().map_or(String::new(), |default| format!("`{default}`"));
        let (flag, variable) = (field.flag(), field.variable());
        let meaning = cell(field.doc);
        writeln!(page, "| `{}` | `{flag}` | `{variable}` | {} | {default} | {meaning} |", field.name, field.value).unwrap();
    }
    page
}

#[test]
fn the_reference_pages_are_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let write = std::env::var_os("FINETUNER_WRITE_REFERENCE").is_some();
    for (name, page) in [("losses.md", losses()), ("miners.md", miners()), ("fields.md", fields())] {
        let path = folder.join(name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let different = page.lines().zip(kept.lines()).position(|(new, old)| new != old);
        assert!(
            page == kept,
            "docs/reference/{name} differs from the code at line {}; see the head of this test",
            different.unwrap_or(page.lines().count().min(kept.lines().count())) + 1
        );
    }
}

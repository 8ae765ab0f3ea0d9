//! The reference pages of `docs/reference` are written from the code: names from the tables, text from the
//! documentation of the structs, options from their fields. This test fails where a page is not what the code says;
//! `FINETUNER_WRITE_REFERENCE=1 cargo test -p finetuner --test reference` writes the pages anew.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use finetuner::objective::Needs;
use finetuner::spec::{Options, RunSpec};
use syn::{Expr, Fields, Item, ItemEnum, ItemStruct};

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)
}

/// Everything that the files of a folder define, tests left out.
#[derive(Default)]
struct Definitions {
    structs: BTreeMap<String, ItemStruct>,
    enums: BTreeMap<String, ItemEnum>,
    /// Documentation of functions: a preset of another entry is built by one.
    functions: BTreeMap<String, Vec<String>>,
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
            if path.extension().is_none_or(|extension| extension != "rs") {
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
            Item::Fn(item) => {
                self.functions.insert(item.sig.ident.to_string(), documentation(&item.attrs));
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

/// One line of a table of losses or miners: `entry::<Type>("Name", &["Alias"])`, or `Entry { name, aliases, build }`.
fn line(expression: &Expr) -> Option<(String, Vec<String>, String)> {
    if let Expr::Struct(entry) = expression {
        let field = |name: &str| {
            let mut fields = entry.fields.iter();
            fields
                .find(|field| matches!(&field.member, syn::Member::Named(own) if own == name))
                .map(|field| &field.expr)
        };
        let Expr::Path(build) = field("build")? else { return None };
        let function = build.path.segments.last()?.ident.to_string();
        return Some((text(field("name")?)?, texts(field("aliases")), function));
    }
    let Expr::Call(call) = expression else { return None };
    let Expr::Path(function) = &*call.func else { return None };
    let segment = function.path.segments.last()?;
    let syn::PathArguments::AngleBracketed(generic) = &segment.arguments else { return None };
    let syn::GenericArgument::Type(syn::Type::Path(of)) = generic.args.first()? else { return None };
    let mut arguments = call.args.iter();
    let name = text(arguments.next()?)?;
    let aliases = texts(arguments.next());
    Some((name, aliases, of.path.segments.last()?.ident.to_string()))
}

/// The texts of `&["a", "b"]`.
fn texts(expression: Option<&Expr>) -> Vec<String> {
    let Some(Expr::Reference(reference)) = expression else { return Vec::new() };
    let Expr::Array(array) = &*reference.expr else { return Vec::new() };
    array.elems.iter().filter_map(text).collect()
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
            let name = renamed(variant).unwrap_or_else(|| snake(&variant.ident.to_string()));
            format!("`{name}`: {explained}")
        });
        let values: Vec<String> = values.collect();
        meaning = format!("{meaning} {}.", values.join("; ")).trim().to_owned();
    }
    (default, meaning)
}

/// The name of a variant in a file, where it is not its own.
fn renamed(variant: &syn::Variant) -> Option<String> {
    let serde = variant.attrs.iter().find(|attribute| attribute.path().is_ident("serde"))?;
    let name: syn::MetaNameValue = serde.parse_args().ok()?;
    text(&name.value)
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
    let item = definitions.structs.get(of);
    let public = |field: &syn::Field| matches!(field.vis, syn::Visibility::Public(_));
    described(page, (name, aliases, of), definitions, item.map(|item| fields_where(item, public)).unwrap_or_default());
}

fn fields_where(item: &ItemStruct, keep: impl Fn(&syn::Field) -> bool) -> Vec<&syn::Field> {
    let Fields::Named(fields) = &item.fields else { return Vec::new() };
    fields.named.iter().filter(|field| keep(field)).collect()
}

/// A heading, the documentation, and a table of these fields.
fn described(
    page: &mut String,
    (name, aliases, of): (&str, &[String], &str),
    definitions: &Definitions,
    fields: Vec<&syn::Field>,
) {
    writeln!(page, "\n## {name}\n").unwrap();
    if !aliases.is_empty() {
        let aliases: Vec<String> = aliases.iter().map(|alias| format!("`{alias}`")).collect();
        writeln!(page, "Also {}.\n", aliases.join(", ")).unwrap();
    }
    if let Some(lines) = definitions.functions.get(of) {
        writeln!(page, "{}", without_links(lines.join("\n").trim())).unwrap();
        return;
    }
    let item = definitions.structs.get(of).unwrap_or_else(|| panic!("{name}: no struct {of}"));
    let lines = documentation(&item.attrs);
    for part in ["Use it", "Reference:"] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "{name}: its documentation says no `{part}`");
    }
    writeln!(page, "{}", without_links(lines.join("\n").trim())).unwrap();
    if fields.is_empty() {
        return;
    }
    writeln!(page, "\n| option | default | meaning |\n|---|---|---|").unwrap();
    for field in fields {
        let (default, meaning) = option(field, definitions);
        let name = field.ident.as_ref().unwrap();
        writeln!(page, "| `{name}` | {} | {} |", cell(&default), cell(&meaning)).unwrap();
    }
}

/// What a loss learns from, and the shapes that it sees. A loss around another takes what that takes.
fn inputs(name: &str) -> &'static str {
    let Ok(loss) = finetuner::objective::loss::new(name, &Options::new()) else {
        return "what the losses within it take";
    };
    match loss.needs() {
        Needs::Labels => "classes, pairs or triplets: rows `[rows, dimension]` with a label each",
        Needs::Classes => "classes known in training: rows `[rows, dimension]` with a class each",
        Needs::Pairs => "pairs, also with negatives: columns `[examples, dimension]`, row i of each belongs together",
        Needs::Scores => "scored pairs: two columns `[pairs, dimension]`, a score a pair",
        Needs::BinaryScores => "pairs marked 1 or 0: two columns `[pairs, dimension]`",
        Needs::RankedScores => "scored pairs in order, or triplets: two columns `[pairs, dimension]`, a score a pair",
        Needs::Triplets => "triplets: columns `[examples, dimension]` of anchors, positives and negatives",
        Needs::TeacherScores => "triplets with a teacher's scores: columns `[examples, dimension]`",
        Needs::Guide => "texts of any kind, and a `guide` whose embeddings it learns: rows `[rows, dimension]`",
        Needs::PairClasses => "pairs with a class (`labelled_pairs`): two columns `[pairs, dimension]`, a class a pair",
        Needs::Any => "texts of any kind: rows `[rows, dimension]`",
    }
}

fn losses() -> String {
    let definitions = Definitions::read(&source("objective/loss"));
    let mut page = "# Losses\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n\
                    `--loss NAME --loss-options key=value,…`, or `loss` and `[loss_options]` in a run file.\n\n\
                    | loss | learns from |\n|---|---|\n"
        .to_owned();
    for (name, ..) in &definitions.table {
        let anchor = name.to_lowercase().replace('.', "");
        writeln!(page, "| [{name}](#{anchor}) | {} |", inputs(name)).unwrap();
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

/// The head of a page.
fn page(title: &str, introduction: &str) -> String {
    format!("# {title}\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n{introduction}\n")
}

/// A page of a table of structs.
fn table(folder: &str, title: &str, introduction: &str, names: &[&str]) -> String {
    let definitions = Definitions::read(&source(folder));
    let mut page = page(title, introduction);
    for (name, aliases, of) in &definitions.table {
        section(&mut page, name, aliases, of, &definitions);
    }
    let read: Vec<&str> = definitions.table.iter().map(|(name, ..)| &name[..]).collect();
    assert_eq!(read, names, "the table as read and as compiled");
    page
}

fn optimizers() -> String {
    let introduction = "`--optimizer NAME --optimizer-options key=value,…`, or `optimizer` and `[optimizer_options]` in a \
                        run file; `loss_optimizer` likewise for what a loss learns. Every optimiser takes \
                        `layer_wise_lr_decay` d (default 1): the rate of a layer k below the top is multiplied by d^k. lr is \
                        `learning_rate`, t counts steps from 1, g is the gradient after clipping by `max_grad_norm`.";
    table("optim/rule", "Optimisers", introduction, &finetuner::optim::rule::names())
}

fn schedules() -> String {
    let introduction = "`--scheduler NAME --scheduler-options key=value,…`, or `scheduler` and `[scheduler_options]` in a \
                        run file. The factor on the learning rate of step s, counted from 0, of T; within the `warmup` of w \
                        steps it is s / w unless said, after it as below, with p = (s - w) / (T - w). Every schedule takes \
                        `num_warmup_steps` and `num_training_steps` in place of both.";
    table("optim/schedule", "Schedules", introduction, &finetuner::optim::schedule::names())
}

/// One enum, described by its documentation and, where asked for, by its variants.
fn of_enum(file: &str, name: &str, title: &str, variants: bool) -> String {
    let parsed = syn::parse_file(&std::fs::read_to_string(source(file)).unwrap()).unwrap();
    let mut definitions = Definitions::default();
    parsed.items.into_iter().for_each(|item| definitions.item(item));
    let item = &definitions.enums[name];
    let mut page = page(title, &without_links(documentation(&item.attrs).join("\n").trim()));
    for variant in item.variants.iter().filter(|_| variants) {
        writeln!(
            page,
            "\n## {}\n\n{}",
            snake(&variant.ident.to_string()),
            without_links(documentation(&variant.attrs).join("\n").trim())
        )
        .unwrap();
        let fields: Vec<_> = variant.fields.iter().collect();
        if !fields.is_empty() {
            writeln!(page, "\n| option | default | meaning |\n|---|---|---|").unwrap();
        }
        for field in fields {
            let (default, meaning) = option(field, &definitions);
            writeln!(page, "| `{}` | {} | {} |", field.ident.as_ref().unwrap(), cell(&default), cell(&meaning))
                .unwrap();
        }
    }
    page
}

fn samplers() -> String {
    let mut page = of_enum("data/order/mod.rs", "Sampler", "Samplers", true);
    let definitions = Definitions::read(&source("data/order"));
    let hierarchy = &definitions.structs["Hierarchy"];
    writeln!(page, "\n## hierarchical\n").unwrap();
    writeln!(page, "{}", without_links(documentation(&hierarchy.attrs).join("\n").trim())).unwrap();
    let mix = &definitions.enums["Mix"];
    writeln!(page, "\n## Several data sets\n\n`dataset_sampler`: {}\n", sentence(&mix.attrs)).unwrap();
    for variant in &mix.variants {
        writeln!(page, "- `{}`: {}", snake(&variant.ident.to_string()), sentence(&variant.attrs)).unwrap();
    }
    page
}

/// Callbacks by name, and the struct of their fields.
const CALLBACKS: [(&str, &str); 8] = [
    ("EvaluationCallback", "EvaluationCallback"),
    ("BestModelCheckpoint", "Monitor"),
    ("EarlyStopping", "EarlyStoppingOptions"),
    ("TrainingCheckpoint", "TrainingCheckpoint"),
    ("WiSEFTCallback", "WiseFtCallback"),
    ("TensorBoardLogger", "TensorBoardLogger"),
    ("CSVLogger", "CsvLogger"),
    ("MLflowLogger", "MlflowLogger"),
];

fn callbacks() -> String {
    let definitions = Definitions::read(&source("train"));
    let mut page = page(
        "Callbacks",
        "`--callback 'Name(field=value,…)'`, repeated, or the list `callbacks` in a run file. Names, fields and defaults are \
         those of Finetuner.",
    );
    let chosen = &definitions.structs["Chosen"];
    for (name, of) in CALLBACKS {
        let mut fields = fields_where(&definitions.structs[of], |field| type_words(&field.ty) != ["Chosen"]);
        if name.ends_with("Logger") {
            fields.extend(fields_where(chosen, |_| true));
        }
        described(&mut page, (name, &[], of), &definitions, fields);
    }
    page
}

fn index() -> String {
    let mut page = page(
        "Reference",
        "Everything that can be asked for, with formula, shapes, defaults, when to use it and where it comes from.",
    );
    for (file, says) in [
        ("fields", "every field of a run: flags, environment, types, defaults"),
        ("losses", "losses and what they learn from"),
        ("miners", "which pairs and triplets of a batch a loss sees"),
        ("distances", "how far apart two embeddings are"),
        ("reducers", "many losses to one number"),
        ("regularizers", "penalties beside a loss"),
        ("samplers", "which examples make a batch"),
        ("optimizers", "gradients to new weights"),
        ("schedules", "the learning rate over the run"),
        ("callbacks", "what is watched, kept and told while a run trains"),
    ] {
        writeln!(page, "- [{file}]({file}.md): {says}").unwrap();
    }
    page
}

fn fields() -> String {
    let mut page =
        "# Every field of a run\n\n<!-- Written from the code by crates/finetuner/tests/reference.rs. -->\n\n\
                    A field has one name in the run file, in Python and, with dashes, on the command line. Precedence: \
                    flag, environment, file, default.\n\n\
                    | field | flag | environment | type | default | meaning |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for field in RunSpec::FIELDS {
        let default = field.default().map_or(String::new(), |default| format!("`{default}`"));
        let (flag, variable) = (field.flag(), field.variable());
        let meaning = cell(field.doc);
        writeln!(page, "| `{}` | `{flag}` | `{variable}` | {} | {default} | {meaning} |", field.name, field.value)
            .unwrap();
    }
    page
}

#[test]
fn the_reference_pages_are_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let write = std::env::var_os("FINETUNER_WRITE_REFERENCE").is_some();
    let pages = [
        ("README.md", index()),
        ("fields.md", fields()),
        ("losses.md", losses()),
        ("miners.md", miners()),
        ("distances.md", of_enum("objective/distance.rs", "Distance", "Distances", false)),
        ("reducers.md", of_enum("objective/reducer.rs", "Reducer", "Reducers", true)),
        ("regularizers.md", of_enum("objective/regularizer.rs", "Regularizer", "Regularisers", false)),
        ("samplers.md", samplers()),
        ("optimizers.md", optimizers()),
        ("schedules.md", schedules()),
        ("callbacks.md", callbacks()),
    ];
    for (name, page) in pages {
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

use super::super::{Example, ItemId};
use super::*;

/// A file of the development data, or `None` (with the reason printed) where it is not at hand.
pub(in crate::data) fn shared(name: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    let found = path.exists().then_some(path);
    if found.is_none() {
        eprintln!("skipped: the development data `{name}` is not at hand");
    }
    found
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn error(name: &str, bytes: &[u8], kind: Option<Kind>) -> String {
    let (_folder, path) = written(name, bytes);
    let error = read(&path, kind).map(|data| data.decision).unwrap_err().to_string();
    error.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn a_missing_file_is_named() {
    let error = read(Path::new("no/such/file.csv"), None).unwrap_err().to_string();
    assert!(error.starts_with("cannot read `no/such/file.csv`: "), "{error}");
}

#[test]
fn bad_utf8_is_named_with_its_line() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("rows.csv", b"a,b\nc,d\ne\xFF,f\n", "rows.csv:3: expected UTF-8, got the byte 0xFF; save the file as UTF-8"),
        ("cut.txt", b"a\n\xE2\x82", "cut.txt:2: expected UTF-8, got the byte 0xE2; save the file as UTF-8"),
        ("wide.csv", b"\xFF\xFEa\0", "wide.csv:1: expected UTF-8, got UTF-16; save the file as UTF-8"),
        (
            "table.csv",
            b"PK\x03\x04\x14\0",
            "table.csv:1: expected UTF-8, got a ZIP archive or a spreadsheet; unpack it, or export the table as CSV",
        ),
        ("rows.jsonl.gz", b"\x1F\x8B\x08\0", "rows.jsonl.gz:1: expected UTF-8, got a file packed by gzip; unpack it"),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(error(name, bytes, None), expected);
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_header() {
    let (_folder, path) = written("rows.csv", "\u{FEFF}text,label\na,x\nb,y\n".as_bytes());
    assert_eq!(read(&path, None).unwrap().kind, Kind::Labelled);
}

#[test]
fn a_text_file_holds_one_text_a_line_and_none_is_empty() {
    let (_folder, path) = written("lines.txt", b"first, with comma\r\nsecond\n");
    let data = read(&path, None).unwrap();
    assert_eq!((data.kind, data.examples.len()), (Kind::Single, 2));
    assert_eq!(data.items.get(ItemId(0)), "first, with comma");
    assert_eq!(error("lines.txt", b"a\n\nb\n", None), "lines.txt:2: expected a text in column `1`, got none");
    assert_eq!(error("lines.txt", b"", None), "lines.txt: holds no examples");
}

#[test]
fn a_text_file_may_hold_other_kinds_when_asked() {
    let (_folder, path) = written("rows.txt", b"a\tx\nb\ty\n");
    assert_eq!(read(&path, Some(Kind::Labelled)).unwrap().label_names, ["x", "y"]);
}

#[test]
fn unreadable_forms_say_what_to_do() {
    assert!(error("rows.parquet", b"PAR1", None).starts_with("rows.parquet: cannot be read as Parquet: "));
}

#[test]
fn an_unknown_kind_names_the_nearest() {
    assert_eq!("Labelled".parse::<Kind>().unwrap(), Kind::Labelled);
    let error = "labeled".parse::<Kind>().unwrap_err().to_string();
    assert_eq!(error, "`kind`: unknown kind `labeled`, did you mean `labelled`?");
}

#[test]
fn the_packages_example_is_read_from_its_headers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/packages");
    let train = read(&folder.join("train.csv"), None).unwrap();
    assert_eq!((train.kind, train.examples.len(), train.ids.len()), (Kind::Pairs, 3200, 3200));
    let index = read(&folder.join("index.csv"), None).unwrap();
    assert_eq!((index.kind, index.items.len(), index.ids.len()), (Kind::Single, 3800, 3800));
    for example in &train.examples {
        let Example::Pair { positive, .. } = example else { panic!("{example:?}") };
        assert!(index.items.find(train.items.get(*positive)).is_none(), "a training document is in the index");
    }
}

#[test]
fn the_development_data_is_read_as_what_it_is() {
    let cases = [
        ("text-classes/banking77/train.csv", Kind::Labelled, 10_003),
        ("text-classes/snips/valid.csv", Kind::Labelled, 700),
        ("pairs/stsb/stsb-en-dev.csv", Kind::Scored, 1_500),
        ("pairs/stsb/stsb-de-train.csv", Kind::Scored, 5_749),
        ("unlabelled/wiki_sentences.txt", Kind::Single, 0),
        ("retrieval/scifact:train", Kind::Pairs, 919),
    ];
    for (name, kind, examples) in cases {
        let Some(path) = shared(name.split(':').next().unwrap()) else { continue };
        let path = path.with_file_name(name.rsplit('/').next().unwrap());
        let data = read(&path, None).unwrap();
        assert_eq!(data.kind, kind, "{}", data.decision);
        assert!(examples == 0 || data.examples.len() == examples, "{}", data.decision);
    }
}

#[test]
fn columns_without_known_names_are_not_guessed() {
    let Some(path) = shared("pairs/mrpc/msr-para-val.tsv") else { return };
    let error = read(&path, None).unwrap_err().to_string();
    assert!(error.contains("cannot decide the kind of 5 columns that start with `Quality`, `#1 ID`"), "{error}");
}

/// Reads a file whose columns are told.
fn told(name: &str, contents: &str, columns: &str, kind: Option<Kind>) -> Result<Dataset> {
    let (_folder, path) = written(name, contents.as_bytes());
    read(Path::new(&format!("{}:{columns}", path.display())), kind)
}

const PRODUCTS: &str = "sku,text,name,about it\n7,x,shoe,\"black, comfortable\"\n8,x,hat,warm\n";

#[test]
fn columns_of_any_name_are_what_they_are_told_to_be() {
    let data = told("products.csv", PRODUCTS, "anchor=name, positive=about it,id=sku", None).unwrap();
    assert_eq!((data.kind, data.ids.as_slice()), (Kind::Pairs, &["7".to_owned(), "8".to_owned()][..]));
    assert_eq!(data.items.iter().collect::<Vec<_>>(), ["shoe", "black, comfortable", "hat", "warm"]);
    assert!(data.decision.ends_with("; as told: anchor=name, positive=about it,id=sku"), "{}", data.decision);
    let data = told("products.csv", PRODUCTS, "title=name,text=about it", Some(Kind::Single)).unwrap();
    assert_eq!(data.items.iter().collect::<Vec<_>>(), ["shoe black, comfortable", "hat warm"]);
    let rows =
        "{\"name\": \"shoe\", \"kind\": \"a\", \"label\": 1}\n{\"name\": \"hat\", \"kind\": \"b\", \"label\": 1}\n";
    assert_eq!(told("products.jsonl", rows, "text=name,label=kind", None).unwrap().label_names, ["a", "b"]);
    assert_eq!(told("products.txt", PRODUCTS, "query=name,document=about it", None).unwrap().kind, Kind::Pairs);
}

#[test]
fn what_is_told_of_columns_has_to_fit() {
    for (name, columns, kind, expected) in [
        ("p.csv", "anchor=nam,positive=about it", None, "p.csv:1: has no column `nam`, did you mean `name`?"),
        ("p.csv", "anchr=name,positive=about it", None, "p.csv: a column cannot be `anchr`, did you mean `anchor`?"),
        ("p.csv", "text=name,", None, "p.csv: expected its columns as in `anchor=name,positive=description`, got ``"),
        ("p.csv", "text=name,label=", None, "got `label=`"),
        ("p.csv", "id=sku,label=name", None, "p.csv:1: cannot decide the kind by `sku`, `name` alone"),
        ("p.csv", "text=name", Some(Kind::Pairs), "p.csv:2: pairs need `anchor`, got `name`"),
        ("p.csv", "text=name,item=about it", None, "columns `name` and `about it` both mean `text`; rename one"),
        ("p.npy", "text=name", None, "has no columns"),
    ] {
        let error = told(name, PRODUCTS, columns, kind).unwrap_err().to_string();
        assert!(error.contains(expected), "{columns}: {error}");
    }
    let rows = "{\"name\": \"shoe\"}\n";
    let error = told("p.jsonl", rows, "text=nom", None).unwrap_err().to_string();
    assert!(error.contains("p.jsonl:1: has no column `nom`, did you mean `name`?"), "{error}");
}

#[test]
fn one_text_is_not_chosen_out_of_two() {
    let pairs = "query,answer\na,b\nc,d\n";
    let error = error("rows.csv", pairs.as_bytes(), Some(Kind::Single));
    assert_eq!(
        error,
        "rows.csv:2: expected one text, got `query` and `answer`; say which, as in `rows.csv:text=answer`"
    );
    let answers = told("rows.csv", pairs, "text=answer", Some(Kind::Single)).unwrap();
    assert_eq!(answers.items.iter().collect::<Vec<_>>(), ["b", "d"]);
}

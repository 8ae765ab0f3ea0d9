//! Pictures that cannot be used: a clear message with their file and row, or left out and counted where that is asked for.

use std::io::Write;
use std::path::Path;

use flate2::Crc;
use flate2::write::ZlibEncoder;
use serde_json::Value;

use super::support::Folder;

/// Pictures of every sort that is read, under two classes.
const GOOD: [(&str, &str); 10] = [
    ("colour.jpg", "a"),
    ("colour.png", "a"),
    ("colour.bmp", "a"),
    ("palette.png", "a"),
    ("progressive.jpg", "a"),
    ("grey.jpg", "b"),
    ("alpha.png", "b"),
    ("turned.jpg", "b"),
    ("cmyk.jpg", "b"),
    ("animated.gif", "b"),
];

/// Those that are not, and what is said of them.
const BAD: [(&str, &[&str]); 5] = [
    ("truncated.jpg", &["truncated", "breaks off before its end"]),
    ("bomb.png", &["50000 x 50000 are 2500000000 pixels, expected at most 67108864"]),
    ("text.jpg", &["expected a picture (JPEG, PNG, WebP, BMP or GIF), got text that begins `a note, not a picture`"]),
    ("none.jpg", &["there is no such file"]),
    ("http://127.0.0.1:9/a.png", &["is a URL, and nothing is downloaded unless URLs are allowed (`--allow-urls`)"]),
];

fn golden(part: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../finetuner/tests/golden").join(part)
}

/// A small network in `network`, and pictures of every sort beside the rows that will name them.
fn with_pictures() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("network")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("vision/resnet18").join(file), folder.path("network").join(file)).unwrap();
    }
    let processor =
        r#"{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 32, "width": 32}}"#;
    folder.write("network/preprocessor_config.json", processor);
    for (name, _) in GOOD {
        std::fs::copy(golden("pixels").join(name), folder.path(name)).unwrap();
    }
    let whole = folder.read("colour.jpg");
    folder.write("truncated.jpg", &whole[..whole.len() - 40]);
    folder.write("bomb.png", bomb());
    folder.write("text.jpg", "a note, not a picture\n");
    folder
}

/// A PNG of 50,000 x 50,000 pixels in a few kilobytes: it unpacks to 7.5 GB.
fn bomb() -> Vec<u8> {
    let mut zeros = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zeros.write_all(&vec![0; 1 << 20]).unwrap();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let edge = 50_000u32.to_be_bytes();
    let header = [&edge[..], &edge, &[8, 2, 0, 0, 0]].concat();
    for (name, data) in [(b"IHDR", header), (b"IDAT", zeros.finish().unwrap()), (b"IEND", Vec::new())] {
        let chunk = [&name[..], &data].concat();
        let mut check = Crc::new();
        check.update(&chunk);
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(chunk);
        file.extend(check.sum().to_be_bytes());
    }
    file
}

/// Rows of pictures that can be used, then those of `bad`.
fn rows(good: usize, bad: &[&str]) -> String {
    let good = (0..good).map(|row| GOOD[row % GOOD.len()]);
    let rows = good.chain(bad.iter().map(|name| (*name, "a")));
    rows.fold("image,label\n".to_owned(), |rows, (name, class)| rows + name + "," + class + "\n")
}

const FIT: &str = "fit --model network --train-data rows.csv --epochs 1 --batch-size 8 --num-items-per-class 2 --threads 1 \
                   --output run";

#[test]
fn a_bad_picture_ends_a_run_with_its_file_and_its_row() {
    let folder = with_pictures();
    for (name, words) in BAD {
        folder.write("rows.csv", rows(10, &[name]));
        folder.fail(FIT, 1, &[&[format!("rows.csv:12: picture `{name}`: ").as_str()], words].concat());
        assert!(!folder.path("run/finetuner.json").exists() && !folder.path("run/model.safetensors").exists());
        std::fs::remove_dir_all(folder.path("run")).unwrap();
    }
    folder.write("rows.csv", rows(4709, &["none.jpg"]) + "none2.jpg,b\n");
    folder.fail(FIT, 1, &["rows.csv:4711: picture `none.jpg`: there is no such file; another picture", "`--skip-bad`"]);
    folder.write("rows.csv", rows(10, &["../outside.png"]));
    folder.fail(FIT, 1, &["rows.csv:12: `../outside.png` leaves the folder of the data"]);
    folder.fail(&format!("{FIT} --skip-bad"), 1, &["`../outside.png` leaves the folder of the data"]);
    folder.write("rows.csv", rows(10, &["http://127.0.0.1:9/a.png"]));
    folder.fail(&format!("{FIT} --allow-urls"), 1, &["rows.csv:12: picture `http://127.0.0.1:9/a.png`", "127.0.0.1"]);
}

#[test]
fn bad_pictures_are_left_out_where_that_is_asked_for_and_counted() {
    let folder = with_pictures();
    let bad = BAD.map(|(name, _)| name);
    folder.write("rows.csv", rows(20, &[&bad[..], &bad[..1]].concat()));
    folder.write("test.csv", rows(10, &["none.jpg", "none2.jpg"]));
    let ran = folder.run(&format!("{FIT} --query-data test.csv --skip-bad"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("Skipped 8 rows with 6 pictures that cannot be used"), "{ran:?}");
    assert!(ran.err.contains("left out 6 of 26 rows, as 5 of their pictures cannot be used:"), "{ran:?}");
    assert!(ran.err.contains("  rows.csv:22 `truncated.jpg`: the JPG file is truncated"), "{ran:?}");
    let skipped = &folder.json("run/report.json")["skipped"];
    assert_eq!((&skipped["pictures"], &skipped["rows"]), (&6.into(), &8.into()), "{skipped}");
    let named: Vec<(&str, u64)> = skipped["examples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| (place["text"].as_str().unwrap(), place["line"].as_u64().unwrap()))
        .collect();
    let expected: Vec<(&str, u64)> = bad.into_iter().zip(22..).chain([("none2.jpg", 13)]).collect();
    assert_eq!(named, expected);

    folder.write("rows.csv", rows(0, &bad));
    folder.fail(&format!("{FIT}2 --skip-bad"), 1, &["rows.csv"]);
}

#[test]
fn a_check_lists_every_bad_picture_and_takes_no_address_for_a_text() {
    let folder = with_pictures();
    let bad = BAD.map(|(name, _)| name);
    std::fs::copy(folder.path("colour.png"), folder.path("copy.png")).unwrap();
    folder.write("rows.csv", rows(10, &bad) + "copy.png,b\n");
    let check = "check --model network --train-data rows.csv --json";
    let ran = folder.run(check);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let rules: Vec<(&str, u64)> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (finding["rule"].as_str().unwrap(), finding["count"].as_u64().unwrap()))
        .collect();
    let all = [("broken_pictures", 5), ("equal_pictures", 1), ("small_pictures", 11), ("animated_pictures", 1)];
    assert_eq!(rules, all, "{found}");
    folder.succeed(&format!("{check} --skip-bad"));
    let strict = folder.run(&format!("{check} --skip-bad --strict"));
    assert_eq!(strict.code, Some(1), "{strict:?}");
}

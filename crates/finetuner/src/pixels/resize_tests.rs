use super::super::golden::{self, difference};
use super::super::{Limits, decode};
use super::*;

#[test]
fn every_filter_is_pillows_within_a_level() {
    let wide = golden::picture("wide", 61, 47);
    for (name, filter) in Filter::NAMES {
        for (width, height) in [(20, 15), (61, 20), (33, 47), (80, 70), (17, 90)] {
            let expected = golden::picture(&format!("resize.{}.{width}x{height}", filter.number()), width, height);
            let (most, beyond) = difference(&resize(&wide, width, height, filter), &expected);
            // Where a pixel lies on the very edge of a box, rounding says on which side.
            let edges = filter == Filter::Box && beyond * 5 < expected.pixels.len();
            assert!(most <= 1 || edges, "{name} {width} x {height}: {most} levels");
        }
    }
}

#[test]
fn a_window_is_the_part_of_the_whole() {
    let wide = golden::picture("wide", 61, 47);
    for (_, filter) in Filter::NAMES {
        for (width, height) in [(24, 19), (61, 30), (90, 80), (60, 15)] {
            let whole = resize(&wide, width, height, filter);
            for window in [(0, 0, 10, 10), (3, 5, 17, 9), (width - 7, height - 6, 7, 6)] {
                let (left, top, wide_part, high_part) = window;
                let part = Window { left, top, width: wide_part, height: high_part };
                let found = resize_window(&wide, (width, height), part, filter);
                let expected = whole.window(i64::from(left), i64::from(top), wide_part, high_part);
                assert!(difference(&found, &expected).0 <= 1, "{filter:?} {width} x {height} {window:?}");
            }
        }
    }
}

#[test]
fn the_same_size_is_the_same_picture() {
    let wide = golden::picture("wide", 61, 47);
    assert_eq!(resize(&wide, 61, 47, Filter::Bicubic), wide);
}

#[test]
fn real_photos_are_decoded_and_resized_as_by_pillow() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !shared.is_dir() {
        return eprintln!("skipped: the photos of ../shared are not here");
    }
    let text = std::fs::read_to_string(golden::folder().join("photos.json")).unwrap();
    let photos: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut counts = [0; 256];
    for (name, golden) in &photos {
        let picture = decode(name, &std::fs::read(shared.join(name)).unwrap(), &Limits::default()).unwrap();
        let size = |at: usize| golden["size"][at].as_u64().unwrap() as u32;
        let small = resize(&picture, size(0), size(1), Filter::Bicubic);
        for point in golden["points"].as_array().unwrap() {
            let number = |at: usize| point[at].as_u64().unwrap() as u32;
            for (channel, found) in small.pixel(number(0), number(1)).into_iter().enumerate() {
                counts[found.abs_diff(number(2 + channel) as u8) as usize] += 1;
            }
        }
    }
    let all: usize = counts.iter().sum();
    eprintln!("levels of difference: {:?} of {all}", &counts[..6]);
    // The decoder's own rounding (zune-jpeg beside libjpeg-turbo) is in it.
    assert!(counts[3..].iter().sum::<usize>() == 0 && counts[2] * 100 <= all, "{:?}", &counts[..8]);
}

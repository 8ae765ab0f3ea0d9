use super::super::golden::{self, difference};
use super::*;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden::folder().join(name)).unwrap()
}

fn problem(name: &str, bytes: &[u8]) -> String {
    decode(name, bytes, &Limits::default()).unwrap_err().to_string()
}

#[test]
fn every_kind_of_file_is_read_as_pillow_reads_it() {
    // JPEG and WebP with losses leave the rounding of their transforms to the decoder.
    for (name, levels) in [
        ("colour.jpg", 6),
        ("progressive.jpg", 6),
        ("grey.jpg", 1),
        ("cmyk.jpg", 6),
        ("turned.jpg", 6),
        ("colour.png", 0),
        ("turned.png", 0),
        ("alpha.png", 1),
        ("grey_alpha.png", 1),
        ("palette.png", 0),
        ("grey16.png", 0),
        ("bits.png", 0),
        ("colour.webp", 4),
        ("alpha.webp", 1),
        ("colour.bmp", 0),
        ("colour.gif", 0),
        ("animated.gif", 0),
        ("animated.webp", 0),
        ("animated.png", 0),
    ] {
        let (width, height) = if name.starts_with("turned") { (16, 24) } else { (24, 16) };
        let expected = golden::picture(&format!("file.{name}"), width, height);
        let found = decode(name, &file(name), &Limits::default()).unwrap();
        let (most, _) = difference(&found, &expected);
        eprintln!("{name}: {most} levels");
        assert!(most <= levels, "{name}: {most} levels, expected at most {levels}");
    }
}

#[test]
fn headers_say_size_and_animation() {
    for name in ["colour.jpg", "colour.png", "colour.webp", "alpha.webp", "colour.bmp", "colour.gif"] {
        let expected = Header { width: 24, height: 16, animated: false };
        assert_eq!(header(name, &file(name), &Limits::default()).unwrap(), expected, "{name}");
    }
    for name in ["animated.gif", "animated.webp", "animated.png"] {
        assert!(header(name, &file(name), &Limits::default()).unwrap().animated, "{name}");
    }
}

#[test]
fn a_file_that_breaks_off_is_refused_wherever_it_does() {
    for name in ["colour.jpg", "progressive.jpg", "colour.png", "colour.webp", "alpha.webp", "colour.bmp", "colour.gif"]
    {
        let whole = file(name);
        assert!(ends_whole(&whole, &whole, whole.len() as u64), "{name}");
        for length in [1, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4, whole.len() - 13] {
            let part = &whole[..length];
            assert!(decode(name, part, &Limits::default()).is_err(), "{name}: {length} of {}", whole.len());
            let problem = problem(name, part);
            assert!(problem.starts_with(&format!("picture `{name}`: ")), "{problem}");
            let header = header(name, part, &Limits::default());
            assert!(
                name.ends_with("bmp") || header.is_err() || !ends_whole(part, part, length as u64),
                "{name} {length}"
            );
        }
    }
    let half = &file("colour.jpg")[..700];
    assert_eq!(
        problem("a.jpg", half),
        "picture `a.jpg`: the JPG file is truncated or damaged: it breaks off before its end"
    );
}

#[test]
fn bytes_after_the_end_of_a_jpeg_do_no_harm() {
    let mut bytes = file("colour.jpg");
    bytes.extend_from_slice(&[0; 100]);
    assert!(decode("a.jpg", &bytes, &Limits::default()).is_ok());
}

#[test]
fn what_is_not_a_picture_is_said() {
    let expected = "expected a picture (JPEG, PNG, WebP, BMP or GIF), got";
    assert_eq!(problem("a.jpg", b""), "picture `a.jpg`: the file is empty");
    assert_eq!(
        problem("a.jpg", b"<!DOCTYPE html>\n<html>"),
        format!("picture `a.jpg`: {expected} text that begins `<!DOCTYPE html> <html>`")
    );
    assert_eq!(problem("a.jpg", &[0, 1, 2, 3, 255]), format!("picture `a.jpg`: {expected} a file of another kind"));
    assert_eq!(problem("a.jpg", b"II*\0\x08\0\0\0"), format!("picture `a.jpg`: {expected} image/tiff; convert it"));
    assert!(problem("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0").ends_with("got HEIF or a video; convert it"));
}

/// A PNG of so many black pixels that says so honestly, in a few bytes.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = 0xFFFF_FFFF_u32;
        for byte in kind.iter().chain(data) {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()));
        }
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &(!crc).to_be_bytes()].concat()
    }
    let size = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let data = [0x78, 0x9C, 0x63, 0, 0, 0, 1, 0, 1];
    [&b"\x89PNG\r\n\x1A\n"[..], &chunk(b"IHDR", &size), &chunk(b"IDAT", &data), &chunk(b"IEND", &[])].concat()
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let bytes = bomb(50_000, 50_000);
    let expected =
        "picture `bomb.png`: 50000 x 50000 are 2500000000 pixels, expected at most 67108864; make it smaller";
    assert_eq!(problem("bomb.png", &bytes), expected);
    assert_eq!(header("bomb.png", &bytes, &Limits::default()).unwrap_err().to_string(), expected);
    assert!(problem("bomb.png", &bomb(u32::MAX, u32::MAX)).starts_with("picture `bomb.png`: "));
    // A GIF's and a BMP's header lie as easily.
    let mut gif = file("colour.gif");
    gif[6..10].fill(0xFF);
    assert!(problem("bomb.gif", &gif).contains("65535 x 65535"));
    let mut bmp = file("colour.bmp");
    bmp[18..26].copy_from_slice(&[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
    assert!(problem("bomb.bmp", &bmp).contains("65535 x 65535"));
    let small = Limits { pixels: 24 * 16 - 1, ..Limits::default() };
    assert!(decode("a.jpg", &file("colour.jpg"), &small).unwrap_err().to_string().contains("24 x 16 are 384 pixels"));
}

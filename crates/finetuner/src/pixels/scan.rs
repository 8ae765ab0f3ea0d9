//! Every picture of a data set looked at before training, so that what is missing in row 4,711 is told at once.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Sources;
use super::decode::{decode, ends_whole, header};
use crate::data::{Items, Modality, PictureFact, Pictures};
use crate::error::{Error, Result};

/// How closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Both ends of the file: its size, whether it is a picture, whether it breaks off. A fraction of a millisecond each.
    Header,
    /// Decoded, and the contents hashed, so that equal pictures are found. As long as one epoch of decoding.
    Whole,
}

/// Pictures between two words on the progress.
const AT_ONCE: usize = 256;

/// Looks at every picture of a collection that is not known yet, on the threads of the pool it is called in. `progress`
/// hears how many of how many are done, and ends the scan with its error where it has one.
///
/// # Errors
/// That of `progress`.
pub fn scan(
    known: &mut Pictures,
    items: &Items,
    (sources, depth): (&Sources, Depth),
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let ids = items.ids(Modality::Image).map(|id| items.get(id));
    let new: Vec<&str> = ids.filter(|address| known.at(address).is_none()).collect();
    let mut done = 0;
    for part in new.chunks(AT_ONCE) {
        let facts: Vec<PictureFact> = part.par_iter().map(|address| look(sources, address, depth)).collect();
        known.extend(part.iter().map(|address| (*address).to_owned()).zip(facts));
        done += part.len();
        progress(done, new.len())?;
    }
    Ok(())
}

fn look(sources: &Sources, address: &str, depth: Depth) -> PictureFact {
    let found = match depth {
        Depth::Header => at_ends(sources, address),
        Depth::Whole => whole(sources, address),
    };
    found.unwrap_or_else(|error| {
        let problem = match error {
            Error::Picture { problem, .. } => problem,
            other => other.to_string(),
        };
        PictureFact { problem: Some(problem), ..PictureFact::default() }
    })
}

fn at_ends(sources: &Sources, address: &str) -> Result<PictureFact> {
    let ends = sources.ends(address)?;
    let header = match header(address, &ends.start, sources.limits()) {
        // What stands before the pixels may be long: a colour profile, a preview.
        Err(_) if ends.bytes > ends.start.len() as u64 => header(address, &sources.read(address)?, sources.limits())?,
        header => header?,
    };
    if !ends_whole(&ends.start, &ends.end, ends.bytes) {
        let problem = "the file is truncated: it breaks off before its end".to_owned();
        return Err(Error::Picture { picture: address.to_owned(), problem });
    }
    Ok(PictureFact { size: (header.width, header.height), animated: header.animated, ..PictureFact::default() })
}

fn whole(sources: &Sources, address: &str) -> Result<PictureFact> {
    let bytes = sources.read(address)?;
    let header = header(address, &bytes, sources.limits())?;
    decode(address, &bytes, sources.limits())?;
    let digest = Sha256::digest(&bytes);
    let hash = digest.first_chunk().map(|first| u64::from_le_bytes(*first));
    Ok(PictureFact { size: (header.width, header.height), animated: header.animated, hash, problem: None })
}

#[cfg(test)]
mod tests {
    use super::super::Picture;
    use super::*;

    #[test]
    fn a_scan_finds_what_is_missing_broken_or_no_picture() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut noise = Picture::filled(200, 150, [0; 3]);
        (0u32..)
            .zip(&mut noise.pixels)
            .for_each(|(place, value)| *value = (place.wrapping_mul(2_654_435_761) >> 24) as u8);
        for name in ["whole.jpg", "same.jpg", "broken.jpg", "whole.png"] {
            image::save_buffer(at(name), &noise.pixels, 200, 150, image::ExtendedColorType::Rgb8).unwrap();
        }
        let bytes = std::fs::read(at("broken.jpg")).unwrap();
        std::fs::write(at("broken.jpg"), &bytes[..bytes.len() / 2]).unwrap();
        std::fs::write(at("text.jpg"), "no picture").unwrap();
        let mut items = Items::default();
        items.intern("a text.jpg");
        let names = ["whole.jpg", "missing.jpg", "broken.jpg", "text.jpg", "whole.png", "same.jpg"];
        for name in names {
            items.intern_as(Modality::Image, &at(name));
        }
        for depth in [Depth::Header, Depth::Whole] {
            let (mut pictures, mut heard) = (Pictures::default(), Vec::new());
            let progress = |done, all| {
                heard.push((done, all));
                Ok(())
            };
            scan(&mut pictures, &items, (&Sources::default(), depth), progress).unwrap();
            assert_eq!(heard, [(6, 6)]);
            let fact = |place: usize| pictures.at(&at(names[place])).unwrap();
            assert_eq!((fact(0).size, fact(4).size), ((200, 150), (200, 150)));
            assert_eq!(fact(1).problem.as_deref(), Some("there is no such file"));
            assert!(fact(2).problem.as_ref().unwrap().contains("breaks off"), "{:?}", fact(2));
            assert!(fact(3).problem.as_ref().unwrap().contains("got text that begins `no picture`"));
            assert_eq!(names.iter().filter(|name| pictures.at(&at(name)).unwrap().problem.is_some()).count(), 3);
            assert_eq!(fact(0).hash == fact(5).hash && fact(0).hash != fact(4).hash, depth == Depth::Whole);
            scan(&mut pictures, &items, (&Sources::default(), depth), |_, _| panic!("all are known")).unwrap();
        }
    }
}

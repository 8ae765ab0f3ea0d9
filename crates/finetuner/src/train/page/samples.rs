//! Queries to look at, with what was found before and after; pictures as small copies of themselves.

use std::fmt::Write;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::escaped;
use crate::data::{Modality, RetrievalSet};
use crate::evaluate::{Evaluation, PerQuery};
use crate::pixels::{Filter, Picture, Sources, resize};

/// Queries of each sort: improved, worsened, unchanged.
const SHOWN: [usize; 3] = [4, 3, 2];

/// The longer edge of a small copy in pixels.
const EDGE: u32 = 96;

/// Letters shown of a text.
const LETTERS: usize = 160;

/// A query with what stood first before and after.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Sample {
    pub(in super::super) query: Cell,
    pub(in super::super) expected: Cell,
    pub(in super::super) ranks: [Option<usize>; 2],
    /// Each hit, and whether it is relevant.
    pub(in super::super) hits: [Vec<(Cell, bool)>; 2],
}

impl Serialize for Sample {
    /// As `samples.json` has it: what other pages are made from.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hits = |side: usize| -> Vec<_> {
            self.hits[side].iter().map(|(cell, relevant)| json!({"item": cell, "relevant": relevant})).collect()
        };
        let side = |side: usize| json!({"rank": self.ranks[side], "hits": hits(side)});
        json!({"query": self.query, "expected": self.expected, "before": side(0), "after": side(1)})
            .serialize(serializer)
    }
}

/// A text or a picture to look at: a text cut to 160 letters, a small copy of a picture.
///
/// As JSON `{"text"}`, or `{"picture", "jpeg"}`: the name of the file, and the copy in base64.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A text, or the start of a vector's numbers.
    Text(String),
    /// Its address, and the copy as the bytes of a JPEG; none where it cannot be read any more.
    Picture(String, Option<Vec<u8>>),
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Text(text) => json!({"text": text}),
            Cell::Picture(address, jpeg) => {
                let name = Path::new(address).file_name().map(|name| name.to_string_lossy());
                json!({"picture": name, "jpeg": jpeg.as_deref().map(base64)})
            }
        }
        .serialize(serializer)
    }
}

impl Cell {
    /// Of an item; `sources` is where its picture is read from, if it is one.
    pub fn new((modality, content): (Modality, &str), sources: Option<&Sources>) -> Self {
        match modality {
            Modality::Text | Modality::Vector => {
                let end = content.char_indices().nth(LETTERS).map(|(end, _)| end);
                Cell::Text(end.map_or(content.to_owned(), |end| format!("{}…", &content[..end])))
            }
            Modality::Image => {
                let picture = sources.and_then(|sources| sources.picture(content).ok());
                Cell::Picture(content.to_owned(), picture.and_then(|picture| small(&picture)))
            }
        }
    }

    fn html(&self) -> String {
        match self {
            Cell::Text(text) => escaped(text),
            Cell::Picture(address, Some(jpeg)) => {
                let address = escaped(address);
                format!("<img alt=\"{address}\" title=\"{address}\" src=\"data:image/jpeg;base64,{}\" />", base64(jpeg))
            }
            Cell::Picture(address, None) => escaped(address),
        }
    }
}

impl Sample {
    pub(super) fn html(&self) -> String {
        let rank = |rank: Option<usize>| rank.map_or("not found".to_owned(), |rank| format!("rank {rank}"));
        let mut html = format!(
            "<div class=\"sample\">\n<ul class=\"hits\"><li>{}</li><li class=\"right\">{}</li></ul>\n",
            self.query.html(),
            self.expected.html()
        );
        for ((when, own), hits) in ["before", "after"].into_iter().zip(self.ranks).zip(&self.hits) {
            let hits = hits.iter().map(|(cell, right)| {
                let class = if *right { " class=\"right\"" } else { "" };
                format!("<li{class}>{}</li>", cell.html())
            });
            let _ = write!(
                html,
                "<div>{when}: {}</div>\n<ul class=\"hits\">{}</ul>\n",
                rank(own),
                hits.collect::<String>()
            );
        }
        html + "</div>\n"
    }
}

/// Those queries that gained most, that lost most, and some that stayed.
pub(in super::super) fn samples(
    set: &RetrievalSet,
    (before, after): (&Evaluation, &Evaluation),
    sources: Option<&Sources>,
) -> Vec<Sample> {
    let pairs: Vec<(&PerQuery, &PerQuery)> = before.queries.iter().zip(&after.queries).collect();
    let gain = |(before, after): &(&PerQuery, &PerQuery)| after.metrics.mrr - before.metrics.mrr;
    let mut ordered = pairs.clone();
    ordered.sort_by(|one, other| gain(other).total_cmp(&gain(one)));
    let improved = ordered.iter().filter(|pair| gain(pair) > 0.0).take(SHOWN[0]);
    let worsened = ordered.iter().rev().filter(|pair| gain(pair) < 0.0).take(SHOWN[1]);
    let unchanged = pairs.iter().filter(|pair| gain(pair) == 0.0).take(SHOWN[2]);
    let sample = |(before, after): &(&PerQuery, &PerQuery)| {
        let document = |place: u32| Cell::new((set.document_modality, &set.documents[place as usize]), sources);
        let relevant = &set.relevant[before.query];
        let hit = |place: &u32| (document(*place), relevant.iter().any(|(own, grade)| own == place && *grade > 0.0));
        Sample {
            query: Cell::new((set.query_modality, &set.queries[before.query]), sources),
            expected: document(before.expected),
            ranks: [before.rank, after.rank],
            hits: [before.top.iter().map(hit).collect(), after.top.iter().map(hit).collect()],
        }
    };
    improved.chain(worsened).chain(unchanged).map(sample).collect()
}

/// A small copy as a JPEG.
fn small(picture: &Picture) -> Option<Vec<u8>> {
    let longer = picture.width.max(picture.height);
    let edge = |own: u32| if longer > EDGE { (own * EDGE / longer).max(1) } else { own };
    let (width, height) = (edge(picture.width), edge(picture.height));
    let picture = if longer > EDGE { &resize(picture, width, height, Filter::Bilinear) } else { picture };
    let mut jpeg = Vec::new();
    let written =
        JpegEncoder::new_with_quality(&mut jpeg, 80).encode(&picture.pixels, width, height, ExtendedColorType::Rgb8);
    written.ok().map(|()| jpeg)
}

/// As RFC 4648 has it.
fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_filled_to_four_letters() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn a_small_copy_keeps_its_shape() {
        let jpeg = small(&Picture::filled(400, 100, [200, 10, 10])).unwrap();
        let copy = image::load_from_memory(&jpeg).unwrap();
        assert_eq!((copy.width(), copy.height()), (96, 24));
    }
}

//! Decodes and resizes photos on one thread: milliseconds each. The peer is `benchmarks/peers/decode.py`.
//!
//! ```text
//! cargo run --release --example decode -- FOLDER [edge=224] [limit=300]
//! ```
//! Files are read before the clock starts. Prints one JSON line: the shorter edge is resized to `edge`, bicubic, the middle square
//! cut out and normalised, as CLIP's processor does.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::time::Instant;

use finetuner::data::{self, Kind, Modality};
use finetuner::pixels::{ImageProcessor, Limits, Sources, decode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: u32| -> Result<u32, std::num::ParseIntError> {
        let found = arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
        found.map_or(Ok(default), str::parse)
    };
    let folder = arguments.first().ok_or("expected a folder of photos")?;
    let (edge, limit) = (option("edge", 224)?, option("limit", 300)? as usize);
    let photos = data::read(folder.as_ref(), Some(Kind::Single))?;
    let (sources, limits) = (Sources::default(), Limits::default());
    let addresses: Vec<&str> = photos.items.ids(Modality::Image).take(limit).map(|id| photos.items.get(id)).collect();
    let files = addresses.iter().map(|address| sources.read(address)).collect::<Result<Vec<_>, _>>()?;

    let processor = ImageProcessor::clip(edge);
    let mut values = vec![0.0; 3 * edge as usize * edge as usize];
    let (mut decoding, mut processing) = (f64::MAX, f64::MAX);
    for _ in 0..3 {
        let (mut in_decoding, mut in_processing) = (0.0, 0.0);
        for (address, bytes) in addresses.iter().zip(&files) {
            let start = Instant::now();
            let picture = decode(address, bytes, &limits)?;
            let decoded = Instant::now();
            processor.normalise(&processor.shape(&picture), &mut values);
            in_decoding += (decoded - start).as_secs_f64();
            in_processing += decoded.elapsed().as_secs_f64();
        }
        (decoding, processing) = (f64::min(decoding, in_decoding), f64::min(processing, in_processing));
    }
    let each = |seconds: f64| 1e3 * seconds / files.len() as f64;
    let report = serde_json::json!({
        "photos": files.len(), "decode_ms": each(decoding), "process_ms": each(processing), "total_ms": each(decoding + processing),
    });
    println!("{report}");
    Ok(())
}

//! One JSON object a line.

use std::io::{Result, Write};

use super::Vectors;

#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    text: &'a str,
    embedding: &'a [f32],
}

pub(super) fn write(vectors: &Vectors<'_>, out: &mut dyn Write) -> Result<()> {
    for (place, text, embedding) in vectors.rows() {
        let id = vectors.texts.ids.as_ref().map(|ids| ids[place].as_str());
        serde_json::to_writer(&mut *out, &Line { id, text, embedding })?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

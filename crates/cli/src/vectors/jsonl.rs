//! One JSON object a line.

use std::io::{Result, Write};

use finetuner::data::Modality;

use super::Vectors;

#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// A vector is not told again.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    embedding: &'a [f32],
}

pub(super) fn write(vectors: &Vectors<'_>, out: &mut dyn Write) -> Result<()> {
    for (place, text, embedding) in vectors.rows() {
        let id = vectors.texts.ids.as_ref().map(|ids| ids[place].as_str());
        let label = vectors.texts.labels.as_ref().map(|labels| labels[place].as_str());
        let text = (vectors.texts.modality != Modality::Vector).then_some(text);
        serde_json::to_writer(&mut *out, &Line { id, text, label, embedding })?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

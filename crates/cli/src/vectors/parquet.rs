//! Apache Parquet: columns `text` (string), `embedding` (list of float) and, of classes, `label` (string), uncompressed.
//!
//! Embeddings do not compress, so no codec is built in.

use std::io::{Error, Result, Write};
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use finetuner::data::Modality;

use super::Vectors;

const COLUMNS: &str = "required binary text (STRING);
    required group embedding (LIST) { repeated group list { required float element; } }";

/// Rows that readers load at once.
const ROWS_IN_A_GROUP: usize = 16_384;

pub(super) fn write(vectors: &Vectors<'_>, out: &mut (dyn Write + Send)) -> Result<()> {
    write_columns(vectors, out).map_err(|error| match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::other(other),
        },
        other => Error::other(other),
    })
}

fn write_columns(vectors: &Vectors<'_>, out: &mut (dyn Write + Send)) -> ::parquet::errors::Result<()> {
    let label = if vectors.texts.labels.is_some() { "required binary label (STRING);" } else { "" };
    let schema = Arc::new(parse_message_type(&format!("message embeddings {{ {COLUMNS} {label} }}"))?);
    // Every value is different: a dictionary and statistics would only be in the way.
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
    // A list is told by levels: 0 starts a row's list, 1 goes on; no list is empty, so all are defined to depth 1.
    let mut repetition = vec![1; vectors.dimension];
    repetition[0] = 0;
    let ids: Vec<String>;
    let texts = match vectors.texts.modality {
        Modality::Vector => {
            ids = (0..vectors.texts.texts.len()).map(|place| vectors.texts.id(place)).collect();
            &ids
        }
        _ => &vectors.texts.texts,
    };
    let mut labels = vectors.texts.labels.iter().flat_map(|labels| labels.chunks(ROWS_IN_A_GROUP));
    for (texts, embeddings) in
        texts.chunks(ROWS_IN_A_GROUP).zip(vectors.embeddings.chunks(ROWS_IN_A_GROUP * vectors.dimension))
    {
        let mut group = writer.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            let texts: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, None, None)?;
            column.close()?;
        }
        if let Some(mut column) = group.next_column()? {
            for row in embeddings.chunks_exact(vectors.dimension) {
                column.typed::<FloatType>().write_batch(row, Some(&vec![1; row.len()]), Some(&repetition))?;
            }
            column.close()?;
        }
        if let (Some(mut column), Some(labels)) = (group.next_column()?, labels.next()) {
            let labels: Vec<ByteArray> = labels.iter().map(|label| label.as_str().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&labels, None, None)?;
            column.close()?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

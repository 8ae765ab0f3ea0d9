//! Tables of Apache Parquet: flat columns of texts and numbers, and lists of numbers, named as a CSV header names them.

use std::fs::File;
use std::path::Path;

use ::parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::{ParquetError, Result as Read};
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::schema::types::{ColumnDescriptor, Type};

use super::collect::{Cell, Collector};
use super::columns::{self, Columns, Role};
use super::vector::write_vector;
use super::{Dataset, Kind};
use crate::error::{Error, Result};

/// A column that has a role.
struct Column {
    role: Role,
    name: String,
    /// Its place among the file's leaves, which is how readers count.
    leaf: usize,
    /// How its numbers are to be understood.
    meaning: ConvertedType,
    /// Of a list of numbers.
    list: Option<List>,
}

/// The levels of a list's numbers.
#[derive(Clone, Copy)]
struct List {
    /// That of a number that is there.
    present: i16,
    /// Whether a number may be absent.
    optional: bool,
}

/// Reads examples from a Parquet file. Columns of unknown names are not looked at, whatever they hold.
///
/// # Errors
/// [`Error::Data`] with the row, counted from 1, where one is at fault; an absent value counts as an empty text. With
/// the file: it is not Parquet, its kind cannot be decided, a column holds something other than texts or numbers, or is
/// compressed by anything but Snappy.
pub(super) fn read(path: &Path, asked: Option<Kind>, columns: &Columns) -> Result<Dataset> {
    let damaged = |error: ParquetError| Error::data(path, None, format!("cannot be read as Parquet: {error}"));
    let file = File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();

    // What does each column mean?
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    columns.check(path, None, &names)?;
    let roles: Vec<Option<Role>> = names.iter().map(|name| columns.role(name, "")).collect();
    if let Some(problem) = columns::twins(&names, &roles) {
        return Err(Error::data(path, None, problem));
    }
    let known: Vec<Role> = roles.iter().flatten().copied().collect();
    let by_name = columns::kind_of(&known).ok_or_else(|| {
        let problem = format!("the columns `{}` do not say what the rows are: {}", names.join("`, `"), columns::ADVICE);
        Error::data(path, None, problem)
    })?;
    let mut used = Vec::new();
    for (field, role) in fields.iter().zip(&roles) {
        let Some(role) = *role else { continue };
        let name = field.name().to_owned();
        let leaves = (0..schema.num_columns()).filter(|leaf| schema.column(*leaf).path().parts()[0] == name);
        let leaves: Vec<usize> = leaves.collect();
        if let [leaf] = leaves[..]
            && let Some(list) = list(&schema.column(leaf))
        {
            used.push(Column { role, name, leaf, meaning: ConvertedType::NONE, list: Some(list) });
            continue;
        }
        let beside = role == Role::Vector && known.iter().any(|role| matches!(role, Role::Text | Role::Image));
        if beside && unsupported(field).is_some() {
            continue; // nobody asked for vectors
        }
        if let Some(got) = unsupported(field) {
            let problem =
                format!("expected texts, numbers or lists of float in column `{name}`, got {got}; write them as text");
            return Err(Error::data(path, None, problem));
        }
        let leaf = *leaves.first().expect("a flat field is a leaf (bug)");
        used.push(Column { role, name, leaf, meaning: field.get_basic_info().converted_type(), list: None });
    }
    for (group, column) in metadata.row_groups().iter().flat_map(|group| used.iter().map(move |used| (group, used))) {
        match group.column(column.leaf).compression() {
            Compression::UNCOMPRESSED | Compression::SNAPPY => {}
            other => {
                let codec = other.to_string();
                let problem = format!(
                    "column `{}` is compressed with {}, expected Snappy or no compression; write the file again, as \
                     with pandas' `to_parquet(…, compression=\"snappy\")`",
                    column.name,
                    codec.split('(').next().unwrap_or(&codec)
                );
                return Err(Error::data(path, None, problem));
            }
        }
    }

    let mut collector = Collector::new(path, asked.unwrap_or(by_name));
    let mut row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let values = used.iter().map(|column| values(path, &*group, column, rows, row)).collect::<Result<Vec<_>>>()?;
        for at in 0..rows {
            row += 1;
            let cells: Vec<Cell<'_>> = used
                .iter()
                .zip(&values)
                .map(|(column, values)| Cell { role: column.role, column: &column.name, value: &values[at] })
                .collect();
            collector.push(row, &cells)?;
        }
    }
    let why = if asked.is_some() { "kind as asked for, columns by name" } else { "kind from the columns' names" };
    collector.finish(&format!("{why} ({})", names.join(", ")))
}

/// The levels of a leaf that is a list of numbers of one depth.
fn list(leaf: &ColumnDescriptor) -> Option<List> {
    let numbers = matches!(leaf.physical_type(), Physical::FLOAT | Physical::DOUBLE) && leaf.max_rep_level() == 1;
    let optional = leaf.self_type().get_basic_info();
    let optional = optional.has_repetition() && optional.repetition() == Repetition::OPTIONAL;
    numbers.then_some(List { present: leaf.max_def_level(), optional })
}

/// What a column holds, where that is neither texts nor numbers.
fn unsupported(field: &Type) -> Option<String> {
    use ConvertedType as Meaning;
    if !field.is_primitive()
        || (field.get_basic_info().has_repetition() && field.get_basic_info().repetition() == Repetition::REPEATED)
    {
        return Some("a list or a group".into());
    }
    let (physical, meaning) = (field.get_physical_type(), field.get_basic_info().converted_type());
    let integer = matches!(
        meaning,
        Meaning::NONE
            | Meaning::INT_8
            | Meaning::INT_16
            | Meaning::INT_32
            | Meaning::INT_64
            | Meaning::UINT_8
            | Meaning::UINT_16
            | Meaning::UINT_32
            | Meaning::UINT_64
    );
    let fits = match physical {
        Physical::BYTE_ARRAY => {
            matches!(meaning, Meaning::NONE | Meaning::UTF8 | Meaning::ENUM | Meaning::JSON)
        }
        // Times without a converted type have a logical one only.
        Physical::INT32 | Physical::INT64 => {
            integer && matches!(field.get_basic_info().logical_type_ref(), None | Some(LogicalType::Integer { .. }))
        }
        Physical::FLOAT | Physical::DOUBLE | Physical::BOOLEAN => true,
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => false,
    };
    (!fits).then(|| match meaning {
        Meaning::NONE => format!("{physical}"),
        meaning => format!("{meaning}"),
    })
}

/// A column's values in one row group as texts; an absent one and NaN, which some writers put in its place, are empty.
fn values(path: &Path, group: &dyn RowGroupReader, column: &Column, rows: usize, before: u64) -> Result<Vec<String>> {
    let damaged = |error: ParquetError| {
        let problem = format!("column `{}` of rows {}… cannot be read: {error}", column.name, before + 1);
        Error::data(path, None, problem)
    };
    let unsigned = matches!(
        column.meaning,
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
    );
    let number = |number: f64, text: String| if number.is_nan() { String::new() } else { text };
    let values = match group.get_column_reader(column.leaf).map_err(damaged)? {
        ColumnReader::ByteArrayColumnReader(reader) => {
            let texts = records(reader, rows).map_err(damaged)?;
            let text = |(at, bytes): (u64, Option<ByteArray>)| {
                let bytes = bytes.map(|bytes| bytes.data().to_vec()).unwrap_or_default();
                String::from_utf8(bytes)
                    .map_err(|_| Error::data(path, before + at, format!("expected UTF-8 in column `{}`", column.name)))
            };
            (1..).zip(texts).map(text).collect::<Result<Vec<_>>>()?
        }
        ColumnReader::Int32ColumnReader(reader) => written(reader, rows, |value| match unsigned {
            true => (value as u32).to_string(),
            false => value.to_string(),
        })
        .map_err(damaged)?,
        ColumnReader::Int64ColumnReader(reader) => written(reader, rows, |value| match unsigned {
            true => (value as u64).to_string(),
            false => value.to_string(),
        })
        .map_err(damaged)?,
        ColumnReader::FloatColumnReader(reader) if column.list.is_some() => {
            vectors(reader, rows, column.list, |value| value).map_err(damaged)?
        }
        ColumnReader::DoubleColumnReader(reader) if column.list.is_some() => {
            vectors(reader, rows, column.list, |value| value as f32).map_err(damaged)?
        }
        ColumnReader::FloatColumnReader(reader) => {
            written(reader, rows, |value| number(f64::from(value), value.to_string())).map_err(damaged)?
        }
        ColumnReader::DoubleColumnReader(reader) => {
            written(reader, rows, |value| number(value, value.to_string())).map_err(damaged)?
        }
        ColumnReader::BoolColumnReader(reader) => written(reader, rows, |value| value.to_string()).map_err(damaged)?,
        _ => Vec::new(), // refused by its type before
    };
    if values.len() != rows {
        let problem = format!(
            "column `{}` ends after row {}, expected {} rows; the file is damaged",
            column.name,
            before + values.len() as u64,
            before + rows as u64
        );
        return Err(Error::data(path, None, problem));
    }
    Ok(values)
}

/// As [`records`], each value written as text.
fn written<T: DataType>(reader: ColumnReaderImpl<T>, rows: usize, write: impl Fn(T::T) -> String) -> Read<Vec<String>> {
    let values = records(reader, rows)?.into_iter();
    Ok(values.map(|value| value.map(&write).unwrap_or_default()).collect())
}

/// The lists of a column, each written as a vector; an absent or empty one is empty, an absent number is none.
fn vectors<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    list: Option<List>,
    number: impl Fn(T::T) -> f32,
) -> Read<Vec<String>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    reader.read_records(rows, Some(&mut defined), Some(&mut repeated), &mut values)?;
    let mut values = values.into_iter();
    let mut lists: Vec<Vec<f32>> = Vec::new();
    for (level, repetition) in defined.into_iter().zip(repeated) {
        if repetition == 0 {
            lists.push(Vec::new());
        }
        let Some(own) = lists.last_mut() else { continue };
        if level == list.present {
            own.extend(values.next().map(&number));
        } else if list.optional && level == list.present - 1 {
            own.push(f32::NAN);
        }
    }
    Ok(lists.into_iter().map(|own| if own.is_empty() { String::new() } else { write_vector(&own) }).collect())
}

/// The values of a flat column, `None` where absent.
fn records<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize) -> Read<Vec<Option<T::T>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter();
    if levels.is_empty() {
        return Ok(values.map(Some).collect()); // a required column has no levels
    }
    Ok(levels.into_iter().take(records).map(|level| if level > 0 { values.next() } else { None }).collect())
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;

//! The reader against damaged and hostile files, and against the reference crate in both directions.

use super::*;

fn written(tensors: &[NamedTensor<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, &[("format", "pt")], tensors).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<SafetensorsFile> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    SafetensorsFile::open(&path)
}

fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).unwrap_err().to_string();
    assert!(message.contains("model.safetensors"), "names no file: {message}");
    message
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let numbers: Vec<f32> = (0..20_000).map(|i| (i as f32).sin()).collect();
    let file = open(&written(&[
        NamedTensor::f32("numbers", &[100, 200], &numbers),
        NamedTensor::u64("state", &[3], &[1, u64::MAX, 0]),
        NamedTensor::f32("scalar", &[], &[0.5]),
    ]))
    .unwrap();
    assert_eq!(file.f32s("numbers").unwrap(), numbers);
    assert_eq!(file.u64s("state").unwrap(), [1, u64::MAX, 0]);
    assert_eq!(file.f32s("scalar").unwrap(), [0.5]);
    assert_eq!(file.tensors()["numbers"].shape, [100, 200]);
    assert_eq!(file.metadata()["format"], "pt");
}

#[test]
fn the_reference_crate_reads_what_we_write() {
    let bytes = written(&[NamedTensor::f32("a", &[2], &[1.0, -2.0]), NamedTensor::u64("b", &[1], &[7])]);
    let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.tensor("a").unwrap().data(), [1.0f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat());
    assert_eq!(reference.tensor("b").unwrap().data(), 7u64.to_le_bytes());
}

#[test]
fn half_precision_written_by_the_reference_crate_is_converted() {
    use ::safetensors::{Dtype, tensor::TensorView};
    let halves: Vec<u8> = [1.5f32, -0.25, 65504.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let brains: Vec<u8> = [3.0f32, -1e30].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let views = [
        ("half", TensorView::new(Dtype::F16, vec![3], &halves).unwrap()),
        ("brain", TensorView::new(Dtype::BF16, vec![2], &brains).unwrap()),
        ("index", TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap()),
    ];
    let file = open(&::safetensors::serialize(views, None).unwrap()).unwrap();
    assert_eq!(file.f32s("half").unwrap(), [1.5, -0.25, 65504.0]);
    assert_eq!(file.f32s("brain").unwrap(), [3.0, bf16::from_f32(-1e30).to_f32()]);
    let error = file.f32s("index").unwrap_err().to_string();
    assert!(error.contains("`index`") && error.contains("I64") && error.contains("F16"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = written(&[NamedTensor::f32("a", &[2], &[1.0, 2.0]), NamedTensor::f32("b", &[1], &[3.0])]);
    for length in 0..bytes.len() {
        refusal(&bytes[..length]);
    }
    assert!(refusal(&bytes[..bytes.len() - 1]).contains("`b`"));
    refusal(&[&bytes[..], &[0]].concat());
}

#[test]
fn a_changed_header_byte_never_panics() {
    let bytes = written(&[NamedTensor::f32("a", &[2], &[1.0, 2.0])]);
    for position in 0..bytes.len() - 8 {
        for byte in [0, b'"', b'9', b'{', 0xff] {
            let mut damaged = bytes.clone();
            damaged[position] = byte;
            if let Ok(file) = open(&damaged) {
                let _ = file.f32s("a");
            }
        }
    }
}

#[test]
fn hostile_headers_are_refused_with_the_tensor_named() {
    let max = u64::MAX;
    let huge = format!(r#"{{"x":{{"dtype":"U8","shape":[{max}],"data_offsets":[0,{max}]}}}}"#);
    let product = format!(r#"{{"x":{{"dtype":"F32","shape":[{max},{max}],"data_offsets":[0,4]}}}}"#);
    for (header, data) in [
        (huge.as_str(), 4),
        (product.as_str(), 4),
        (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
        (r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
        (r#"{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
        ),
        (r#"{"x":[]}"#, 4),
    ] {
        let message = refusal(&raw(header, &vec![0; data]));
        assert!(message.contains("`x`"), "{header}: {message}");
    }
    assert!(refusal(&max.to_le_bytes()).contains("header"));
    assert!(refusal(&raw("[1,2", &[])).contains("header"));
    assert!(refusal(&raw(&"[".repeat(100_000), &[])).contains("header"));
}

#[test]
fn a_pickle_under_the_wrong_name_and_a_git_lfs_pointer_say_what_to_do() {
    assert!(refusal(b"PK\x03\x04 archive/data.pkl").contains("save_file"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("git lfs pull"));
}

#[test]
fn a_shape_that_does_not_fit_or_a_repeated_name_is_not_written() {
    assert!(write(&mut Vec::new(), &[], &[NamedTensor::f32("a", &[3], &[1.0])]).is_err());
    let twice = [NamedTensor::f32("a", &[1], &[1.0]), NamedTensor::f32("a", &[1], &[1.0])];
    assert!(write(&mut Vec::new(), &[], &twice).is_err());
}

#[test]
fn one_byte_an_element_comes_back_within_half_a_step() {
    let values: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * if i < 6 { 1.0 } else { 20.0 }).collect();
    let (elements, scales) = quantise(&values, 6);
    let tensors = [
        NamedTensor { name: "w", shape: &[2, 6], values: Values::I8(&elements) },
        NamedTensor::f32("w.scale", &[2], &scales),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut bytes = Vec::new();
    write(&mut bytes, &[], &tensors).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let read = SafetensorsFile::open(&path).unwrap().f32s("w").unwrap();
    for (i, (got, expected)) in read.iter().zip(&values).enumerate() {
        assert!((got - expected).abs() <= 0.501 * scales[i / 6], "{got} {expected}");
    }
    let lost = [NamedTensor { name: "w", shape: &[2, 6], values: Values::I8(&elements) }];
    let mut bytes = Vec::new();
    write(&mut bytes, &[], &lost).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(SafetensorsFile::open(&path).unwrap().f32s("w").unwrap_err().to_string().contains("w.scale"));
}

//! The numbers of a golden file, and those of an objective to hold against them.

use std::collections::BTreeMap;
use std::path::Path;

use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
use finetuner::objective::{BatchLayout, Objective};

/// Every tensor of a file of `golden`, by name.
pub(crate) fn tensors(name: &str) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
    tensors.iter().map(|(name, view)| (name.to_owned(), numbers(view.data()))).collect()
}

/// Value and gradient.
#[allow(dead_code, reason = "not every test that reads numbers evaluates this way")]
pub(crate) fn evaluate(objective: &Objective, embeddings: &[f32], layout: &BatchLayout) -> (f64, Vec<f64>) {
    let (device, parameters) = (Cpu::F32, Parameters::default());
    let mut tape = Tape::recording(&device, &parameters);
    let rows = layout.rows();
    let leaf = tape.leaf(Tensor::from_vec(embeddings.to_vec(), &[rows, embeddings.len() / rows]).unwrap());
    let value = objective.loss(&mut tape, &leaf, layout).unwrap();
    assert_eq!(value.value().shape(), [1]);
    let mut found = tape.backward(&value, Tensor::scalar(1.0), &mut Gradients::new(&parameters)).unwrap();
    let gradient =
        found.take(&leaf).map_or(vec![0.0; embeddings.len()], |g| g.data().iter().map(|&g| f64::from(g)).collect());
    (f64::from(value.value().item()), gradient)
}

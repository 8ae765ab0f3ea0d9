//! Numbers from a peer, written by the program beside them.

use std::path::Path;
use std::sync::Arc;

use engine::Tensor;
use safetensors::SafeTensors;
use serde_json::Value;

/// A file of tensors and the description of what they are.
pub(crate) struct Golden {
    bytes: Vec<u8>,
    pub(crate) description: Value,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let description = std::fs::read(file.with_extension("json")).unwrap();
        Golden {
            bytes: std::fs::read(file.with_extension("safetensors")).unwrap(),
            description: serde_json::from_slice(&description).unwrap(),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("{name} is not in the golden file"));
        let numbers = view.data().chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
        Tensor::from_vec(numbers, view.shape()).unwrap()
    }

    pub(crate) fn doubles(&self, name: &str) -> Vec<f64> {
        self.tensor(name).data().iter().map(|&x| f64::from(x)).collect()
    }

    pub(crate) fn ids(&self, name: &str) -> Arc<[u32]> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let words = file.tensor(name).unwrap().data().chunks_exact(4);
        words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

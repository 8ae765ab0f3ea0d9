//! Tensors, a tape and the kernels that train encoders.
//!
//! The engine knows no text, no model and no loss. In reading order:
//! 1. [`error`]: shapes that do not fit
//! 2. [`tensor`]: dense row-major `f32` matrices over pooled buffers
//! 3. [`random`]: counter-based random numbers, so that a second pass draws the same dropout mask
//! 4. [`packing`]: sequences of different lengths in one matrix, and [`device`]: the one seam between operations and hardware; [`cpu`] is its reference implementation, [`cuda`] its
//!    twin on a GPU
//!    [`function`]: the small functions that its kernels are parameterised by
//!    [`map`]: the layout of feature maps, and the kernels over them
//! 5. [`parameter`]: named weights and their gradients
//! 6. [`tape`]: records operations and runs them backwards
//! 7. [`op`]: the closed set of operations, one file each, forward and backward side by side
//!
//! ```
//! use engine::{Cpu, Gradients, Parameters, Tape, Tensor};
//!
//! # fn main() -> Result<(), engine::Error> {
//! let mut parameters = Parameters::default();
//! let weight = parameters.add("weight", Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[2, 2])?);
//! let mut gradients = Gradients::new(&parameters);
//! let device = Cpu::default();
//! let mut tape = Tape::recording(&device, &parameters);
//! let input = tape.constant(Tensor::from_vec(vec![1.0, -1.0], &[1, 2])?);
//! let weight = tape.parameter(weight);
//! let output = tape.linear(&input, &weight, None)?;
//! assert_eq!(output.value().data(), [-1.0, -1.0]);
//! tape.backward(&output, Tensor::from_vec(vec![1.0, 10.0], &[1, 2])?, &mut gradients)?;
//! # Ok(())
//! # }
//! ```

#[macro_use]
mod isa;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod error;
pub mod function;
pub mod map;
pub mod op;
pub mod packing;
pub mod parameter;
mod pool;
pub mod random;
mod support;
pub mod tape;
pub mod tensor;

pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::Device;
pub use error::{Error, Result};
pub use isa::{InstructionSet, has_bf16, instruction_set};
pub use map::Map;
pub use packing::Packing;
pub use parameter::{Gradients, Parameter, ParameterId, Parameters};
pub use tape::{LeafGradients, Tape, Var};
pub use tensor::Tensor;

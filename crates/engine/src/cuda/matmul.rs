//! Matrix products, by cuBLASLt.
//!
//! It sees columns where we see rows: our `C = A B` is its `C^T = B^T A^T`, with our matrices read as they lie.

use std::collections::HashMap;
use std::sync::PoisonError;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::buffer::{Buffer, Format};
use super::context::Context;
use crate::error::Error;

/// Memory that a product may use beside its operands, as NVIDIA recommends for its newer devices.
static WORKSPACE: usize = 32 << 20;
/// Plans that are kept: every length of a packed batch makes a few.
const PLANS: usize = 8192;

/// One operand: where it begins and whether it is read transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) address: u64,
    pub(crate) transposed: bool,
}

/// `out [m, n] = alpha a [m, k] b [k, n] + bias [n] (+ out)`, after transposition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub(crate) extents: (usize, usize, usize),
    pub(crate) a: Side,
    pub(crate) b: Side,
    /// The format of `a` and `b`.
    pub(crate) format: Format,
    pub(crate) out: u64,
    /// The format of `out` and the bias: that of the operands, or float.
    pub(crate) out_format: Format,
    pub(crate) bias: Option<u64>,
    pub(crate) alpha: f32,
    pub(crate) accumulate: bool,
}

/// What a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    extents: (usize, usize, usize),
    transposed: (bool, bool),
    formats: (Format, Format),
    bias: bool,
}

struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each was created once, by the plan itself.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

/// The library, its memory and the plans that were made.
pub(crate) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: HashMap<Kind, Plan>,
}

fn data_type(format: Format) -> sys::cudaDataType {
    match format {
        Format::Float => sys::cudaDataType_t::CUDA_R_32F,
        Format::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, kind: Kind) -> Result<Self, CublasError> {
        let (m, n, k) = kind.extents;
        let (operand, out) = (data_type(kind.formats.0), data_type(kind.formats.1));
        let float = sys::cudaDataType_t::CUDA_R_32F;
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, float)?;
        // Rows of what the library sees are our columns.
        let layout = |of, rows: usize, columns: usize| {
            result::create_matrix_layout(of, columns as u64, rows as u64, columns as i64)
        };
        let (a, b) = kind.transposed;
        let a = if a { layout(operand, k, m)? } else { layout(operand, m, k)? };
        let b = if b { layout(operand, n, k)? } else { layout(operand, k, n)? };
        let layouts = [b, a, layout(out, m, n)?];
        let mut plan = Plan { description, layouts, algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] } };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(kind.transposed.1))?;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(kind.transposed.0))?;
        if kind.bias {
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32)?;
            // Any well-aligned address: the algorithm must not depend on which.
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, 256u64)?;
        }
        let preference = result::create_matmul_pref()?;
        // SAFETY: the preference takes a size; the handles were created above.
        let found = unsafe {
            let limit = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_pref_attribute(preference, limit, (&raw const WORKSPACE).cast(), size_of::<usize>())
                .and_then(|()| {
                    let [b, a, out] = plan.layouts;
                    result::get_matmul_algo_heuristic(handle, description, b, a, out, out, preference)
                })
        };
        // SAFETY: created above.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        plan.algorithm = found?.algo;
        Ok(plan)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<(), CublasError> {
        // SAFETY: the callers give each attribute a value of its type.
        unsafe {
            result::set_matmul_desc_attribute(self.description, attribute, (&raw const value).cast(), size_of::<T>())
        }
    }
}

impl Products {
    fn new(context: &Context) -> Result<Self, CublasError> {
        Ok(Products { handle: result::create_handle()?, workspace: context.allocate(WORKSPACE), plans: HashMap::new() })
    }

    /// The address of its memory, which the context frees.
    pub(crate) fn workspace(&self) -> u64 {
        self.workspace
    }

    fn run(&mut self, context: &Context, product: &Product) -> Result<(), CublasError> {
        let kind = Kind {
            extents: product.extents,
            transposed: (product.a.transposed, product.b.transposed),
            formats: (product.format, product.out_format),
            bias: product.bias.is_some(),
        };
        if self.plans.len() >= PLANS {
            self.plans.clear();
        }
        let plan = match self.plans.entry(kind) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Plan::new(self.handle, kind)?),
        };
        if let Some(bias) = product.bias {
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        let beta = if product.accumulate { 1.0f32 } else { 0.0 };
        let [b, a, out] = plan.layouts;
        // SAFETY: the caller promises that the matrices lie where the product says; the layouts were made for its extents.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const product.alpha).cast(),
                (&raw const beta).cast(),
                product.b.address as *const _,
                b,
                product.a.address as *const _,
                a,
                product.out as *const _,
                out,
                product.out as *mut _,
                out,
                &plan.algorithm,
                self.workspace as *mut _,
                WORKSPACE,
                context.stream.cast(),
            )
        }
    }
}

impl Context {
    /// Computes a product.
    ///
    /// # Safety
    /// The matrices lie where it says.
    pub(crate) unsafe fn multiply(&self, product: &Product) {
        let (m, n, k) = product.extents;
        if m == 0 || n == 0 || !self.ready() {
            return;
        }
        if k == 0 {
            debug_assert!(product.bias.is_none(), "no product over nothing has a bias");
            if !product.accumulate {
                self.clear(product.out, m * n * product.out_format.bytes());
            }
            return;
        }
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if products.is_none() {
            match Products::new(self) {
                // Without its workspace there is nothing to keep.
                Ok(found) if found.workspace != 0 => *products = Some(found),
                Ok(_) => return,
                Err(error) => return self.fail(self.broken_product("cuBLASLt", error)),
            }
        }
        let Some(Err(error)) = products.as_mut().map(|products| products.run(self, product)) else { return };
        self.fail(self.broken_product(&format!("a product of {m} x {k} and {k} x {n} ({:?})", product.format), error));
    }

    fn broken_product(&self, operation: &str, error: CublasError) -> Error {
        let device = format!("cuda:{}", self.ordinal);
        Error::Device { device, operation: operation.into(), reason: format!("{:?}", error.0) }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: created once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Side {
    pub(crate) fn of(buffer: &Buffer, transposed: bool) -> Self {
        Side { address: buffer.address(), transposed }
    }
}

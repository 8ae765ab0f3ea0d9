//! Kernels: compiled by NVRTC for the device at hand when first used, kept on disk, launched by name.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;
use cudarc::nvrtc;
use rayon::prelude::*;

use super::buffer::Buffer;
use super::context::Context;
use crate::error::{Error, Result};

const COMMON: &str = include_str!("kernels/common.cuh");
const ACTIVATION: &str = include_str!("kernels/activation.cuh");
const ATTENTION: &str = include_str!("kernels/attention.cuh");
const TENSOR_CORE: &str = include_str!("kernels/tensor_core.cuh");
const FLASH_ATTENTION: &str = include_str!("kernels/flash_attention.cuh");

/// A file of kernels, or those of one kind of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    /// Attention in plain loops, for heads of at most 32 times so many numbers.
    Attention {
        columns: usize,
    },
    Elementwise,
    Embedding,
    /// Attention in tiles of bf16, for heads of so many numbers; 1 with dropout, 2 with a bias.
    FlashAttention {
        size: usize,
        extras: usize,
    },
    FlashAttentionBackward {
        size: usize,
        extras: usize,
    },
    Function,
    Norm,
    Pooling,
    Similarity,
    Update,
}

impl Program {
    /// All of them, for compiling them ahead; those for tensor cores only for activations of bf16.
    pub(crate) fn all(bf16: bool) -> Vec<Program> {
        use Program::*;
        let mut programs = vec![Elementwise, Embedding, Function, Norm, Pooling, Similarity, Update];
        programs.extend([1, 2, 4, 8].map(|columns| Attention { columns }));
        for size in if bf16 { &[32, 64, 128][..] } else { &[] } {
            let kinds = [0, 1, 2].map(|extras| (*size, extras));
            programs.extend(kinds.map(|(size, extras)| FlashAttention { size, extras }));
            programs.extend(kinds.map(|(size, extras)| FlashAttentionBackward { size, extras }));
        }
        programs
    }

    fn source(self) -> String {
        let flash = |size, extras, text: &str| {
            let kind = format!("#define HEAD_SIZE {size}\n#define HEAD_EXTRAS {extras}\n");
            [COMMON, ATTENTION, &kind, TENSOR_CORE, FLASH_ATTENTION, text].concat()
        };
        let text = match self {
            Program::Attention { columns } => {
                let kind = format!("#define HEAD_COLUMNS {columns}\n");
                return [COMMON, ATTENTION, &kind, include_str!("kernels/attention.cu")].concat();
            }
            Program::FlashAttention { size, extras } => {
                return flash(size, extras, include_str!("kernels/flash_attention.cu"));
            }
            Program::FlashAttentionBackward { size, extras } => {
                let queries = include_str!("kernels/flash_attention_queries.cu");
                let keys = include_str!("kernels/flash_attention_keys.cu");
                return flash(size, extras, &[queries, keys].concat());
            }
            Program::Elementwise => include_str!("kernels/elementwise.cu"),
            Program::Embedding => include_str!("kernels/embedding.cu"),
            Program::Function => include_str!("kernels/function.cu"),
            Program::Norm => include_str!("kernels/norm.cu"),
            Program::Pooling => include_str!("kernels/pooling.cu"),
            Program::Similarity => include_str!("kernels/similarity.cu"),
            Program::Update => include_str!("kernels/update.cu"),
        };
        [COMMON, ACTIVATION, text].concat()
    }
}

/// One argument of a kernel: the value in the lower bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Argument(u64);

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Argument(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Argument(value as u64)
    }
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Argument(value as u64)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Argument(u64::from(value))
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Argument(u64::from(value as u32))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Argument(u64::from(value.to_bits()))
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Argument(value.to_bits())
    }
}

impl From<&Buffer> for Argument {
    fn from(buffer: &Buffer) -> Self {
        Argument(buffer.address())
    }
}

/// A null pointer for an argument that is left out.
impl From<Option<&Buffer>> for Argument {
    fn from(buffer: Option<&Buffer>) -> Self {
        Argument(buffer.map_or(0, Buffer::address))
    }
}

/// How many blocks of how many threads run, each with how many bytes of dynamic shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) blocks: (u32, u32, u32),
    pub(crate) threads: u32,
    pub(crate) shared: u32,
}

impl Grid {
    /// Without dynamic shared memory, along one axis.
    pub(crate) fn new(blocks: usize, threads: usize) -> Self {
        Grid { blocks: (blocks as u32, 1, 1), threads: threads as u32, shared: 0 }
    }

    /// Enough threads, 256 to a block, for each of `count` things to have one.
    pub(crate) fn one_each(count: usize) -> Self {
        Grid::new(count.div_ceil(256), 256)
    }

    /// Enough blocks of 8 warps for each of `count` things to have a warp.
    pub(crate) fn warp_each(count: usize) -> Self {
        Grid::new(count.div_ceil(8), 256)
    }
}

/// The compiled kernels of one device.
pub(crate) struct Programs {
    capability: (u32, u32),
    modules: Mutex<HashMap<Program, usize>>,
    functions: Mutex<HashMap<(Program, String), usize>>,
}

impl Programs {
    pub(crate) fn new(capability: (u32, u32)) -> Self {
        Programs { capability, modules: Mutex::default(), functions: Mutex::default() }
    }
}

impl Context {
    /// Runs a kernel. Nothing happens where it has no blocks, or the device has failed.
    ///
    /// # Safety
    /// The arguments have the types of the kernel's parameters, and their blocks the lengths that it touches.
    pub(crate) unsafe fn launch(&self, program: Program, name: &str, grid: Grid, arguments: &[Argument]) {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 || grid.threads == 0 || !self.ready() {
            return;
        }
        let function = match self.function(program, name) {
            Ok(function) => function,
            Err(error) => return self.fail(error),
        };
        if grid.shared > 48 << 10 {
            self.allow_shared(function, grid.shared);
        }
        let mut pointers: Vec<*mut c_void> =
            arguments.iter().map(|argument| (&raw const argument.0) as *mut c_void).collect();
        let (x, y, z) = grid.blocks;
        // SAFETY: the caller promises that the arguments fit; the driver copies them before it returns.
        let result = unsafe {
            sys::cuLaunchKernel(
                function,
                x,
                y,
                z,
                grid.threads,
                1,
                1,
                grid.shared,
                self.stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.refused(name, result);
    }

    /// More dynamic shared memory than a kernel gets unasked.
    fn allow_shared(&self, function: sys::CUfunction, bytes: u32) {
        let mut allowed = self.shared_memory.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = allowed.entry(function as usize).or_default();
        if *allowed < bytes {
            *allowed = bytes;
            let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            self.refused("shared memory", unsafe { sys::cuFuncSetAttribute(function, limit, bytes as i32) });
        }
    }

    fn function(&self, program: Program, name: &str) -> Result<sys::CUfunction> {
        let mut functions = self.programs.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (program, name.to_owned());
        if let Some(&function) = functions.get(&key) {
            return Ok(function as sys::CUfunction);
        }
        let module = self.module(program)?;
        let mut function = std::ptr::null_mut();
        let text = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded, the name terminated.
        let result = unsafe { sys::cuModuleGetFunction(&mut function, module, text.as_ptr()) };
        if result != sys::CUresult::CUDA_SUCCESS {
            return Err(self.broken(program, format!("there is no kernel `{name}` (bug): {result:?}")));
        }
        functions.insert(key, function as usize);
        Ok(function)
    }

    /// Compiles a file of kernels and loads it, unless it is there already.
    pub(crate) fn module(&self, program: Program) -> Result<sys::CUmodule> {
        let mut modules = self.programs.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&module) = modules.get(&program) {
            return Ok(module as sys::CUmodule);
        }
        let image = self.image(program)?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a whole cubin.
        let result = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        if result != sys::CUresult::CUDA_SUCCESS {
            return Err(self.broken(program, format!("the driver does not load it: {result:?}")));
        }
        modules.insert(program, module as usize);
        Ok(module)
    }

    fn broken(&self, program: Program, reason: String) -> Error {
        let operation = format!("its kernels ({program:?})").to_lowercase();
        Error::Device { device: format!("cuda:{}", self.ordinal), operation, reason }
    }

    /// The machine code of a file of kernels, from the disk if it was compiled before.
    fn image(&self, program: Program) -> Result<Vec<u8>> {
        let source = program.source();
        let (major, minor) = self.programs.capability;
        let architecture = format!("sm_{major}{minor}");
        let mut version = (0, 0);
        // SAFETY: writes two integers.
        let _ = unsafe { nvrtc::sys::nvrtcVersion(&mut version.0, &mut version.1) };
        let mut hasher = DefaultHasher::new();
        (&source, &architecture, version).hash(&mut hasher);
        let kept = cache_folder().map(|folder| folder.join(format!("{architecture}-{:016x}.cubin", hasher.finish())));
        if let Some(image) = kept.as_ref().and_then(|path| std::fs::read(path).ok()).filter(|image| !image.is_empty()) {
            return Ok(image);
        }
        let image = compile(&source, &architecture).map_err(|log| self.broken(program, log))?;
        // A cache that cannot be written costs a few seconds the next time.
        if let Some(path) = kept
            && let Some(folder) = path.parent()
            && std::fs::create_dir_all(folder).is_ok()
        {
            // Several devices of one process may compile the same at once.
            static WRITTEN: AtomicUsize = AtomicUsize::new(0);
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            let partial = path.with_extension(format!("{}-{number}.partial", std::process::id()));
            let _ = std::fs::write(&partial, &image).and_then(|()| std::fs::rename(&partial, &path));
        }
        Ok(image)
    }
}

/// Compiles every kernel for an architecture; see [`super::compile_for`].
pub(super) fn compile_all(architecture: &str) -> Result<Vec<(String, usize)>> {
    // SAFETY: only looks for the library.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(Error::Unavailable { device: architecture.into(), reason: "NVRTC was not found".into() });
    }
    let compile_one = |program: Program| {
        let name = format!("{program:?}").to_lowercase();
        let image = compile(&program.source(), architecture).map_err(|reason| Error::Device {
            device: architecture.into(),
            operation: format!("its kernels ({name})"),
            reason,
        })?;
        Ok((name, image.len()))
    };
    let bf16 = !["sm_70", "sm_75"].contains(&architecture);
    Program::all(bf16).into_par_iter().map(compile_one).collect()
}

/// `XDG_CACHE_HOME` or `~/.cache`, then `finetuner/kernels`.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(base.or_else(home)?.join("finetuner").join("kernels"))
}

/// Machine code, or what the compiler complains of.
fn compile(source: &str, architecture: &str) -> std::result::Result<Vec<u8>, String> {
    let source = CString::new(source).map_err(|error| error.to_string())?;
    let program = nvrtc::result::create_program(&source, None).map_err(|error| format!("{error:?}"))?;
    let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    // SAFETY: the program was created and is destroyed once, at the end.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, &options);
        let mut image = Err(String::new());
        if compiled.is_ok() {
            let mut size = 0;
            let mut bytes = Vec::new();
            let found = nvrtc::sys::nvrtcGetCUBINSize(program, &mut size).result().and_then(|()| {
                bytes = vec![0u8; size];
                nvrtc::sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast()).result()
            });
            image = found.map(|()| bytes).map_err(|error| format!("{error:?}"));
        } else if let Ok(log) = nvrtc::result::get_program_log(program) {
            let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).take_while(|&byte| byte != 0).collect();
            image = Err(String::from_utf8_lossy(&log).into_owned());
        }
        let _ = nvrtc::result::destroy_program(program);
        image
    }
}

//! One CUDA device with its stream: everything that is asked of it happens there, in order.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUresult};

use super::matmul::Products;
use super::monitor::Monitor;
use super::program::Programs;
use crate::error::{Error, Result};

/// A device, its stream and what is cached for it.
///
/// A call that fails makes everything after it do nothing, so that no kernel sees memory that is not there;
/// [`Context::check`] says what went wrong.
pub(crate) struct Context {
    pub(crate) ordinal: usize,
    pub(crate) name: String,
    pub(crate) capability: (u32, u32),
    pub(crate) multiprocessors: u32,
    /// The most bytes of shared memory that a block may ask for.
    pub(crate) shared_limit: u32,
    pub(crate) stream: sys::CUstream,
    pub(crate) programs: Programs,
    pub(crate) products: Mutex<Option<Products>>,
    context: sys::CUcontext,
    device: sys::CUdevice,
    pool: sys::CUmemoryPool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    pub(crate) shared_memory: Mutex<HashMap<usize, u32>>,
    /// Once it was asked for; none where it is not installed.
    monitor: OnceLock<Option<Monitor>>,
}

// SAFETY: the handles are those of the driver, which may be used from any thread whose current context is theirs; every
// call makes it current first.
unsafe impl Send for Context {}
// SAFETY: as above; what is changed behind a shared reference is behind a lock.
unsafe impl Sync for Context {}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "cuda:{}", self.ordinal)
    }
}

/// What the driver says of a result; `None` where all is well.
fn complaint(result: CUresult) -> Option<String> {
    if result == CUresult::CUDA_SUCCESS {
        return None;
    }
    let mut text = std::ptr::null();
    // SAFETY: `text` is written with a pointer to a constant string, or left null.
    let known = unsafe { sys::cuGetErrorString(result, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: see above.
    Some(if known { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() } else { format!("{result:?}") })
}

fn unavailable(ordinal: usize, reason: impl Into<String>) -> Error {
    Error::Unavailable { device: format!("cuda:{ordinal}"), reason: reason.into() }
}

/// Starts the driver; gives the number of devices and the driver's version as `major * 1000 + minor * 10`.
///
/// # Errors
/// [`Error::Unavailable`] with what is missing.
pub(crate) fn start() -> Result<(usize, u32)> {
    // SAFETY: only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(unavailable(0, "the NVIDIA driver (libcuda) is not installed, or not visible in this container"));
    }
    let (mut count, mut version) = (0, 0);
    // SAFETY: both write one integer.
    let started = unsafe {
        complaint(sys::cuDriverGetVersion(&mut version))
            .or_else(|| complaint(sys::cuInit(0)))
            .or_else(|| complaint(sys::cuDeviceGetCount(&mut count)))
    };
    if let Some(reason) = started {
        return Err(unavailable(0, format!("the NVIDIA driver says: {reason}")));
    }
    if version < 12_000 {
        let found = format!("the driver knows CUDA {}.{}", version / 1000, version % 1000 / 10);
        return Err(unavailable(0, format!("{found}; CUDA 12 or newer is needed: update the NVIDIA driver")));
    }
    Ok((count as usize, version as u32))
}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none of this number, or something that it needs is missing.
    pub(crate) fn open(ordinal: usize) -> Result<Self> {
        let (count, _) = start()?;
        if ordinal >= count {
            let found = if count == 0 { "no GPU was found".into() } else { format!("there are {count}, from 0 on") };
            return Err(unavailable(ordinal, found));
        }
        // SAFETY: only look for the libraries.
        let (compiler, products) =
            unsafe { (cudarc::nvrtc::sys::is_culib_present(), cudarc::cublaslt::sys::is_culib_present()) };
        if !compiler || !products {
            let library = if compiler { "cuBLASLt" } else { "NVRTC" };
            let advice = "install the CUDA runtime libraries, or name their folder in LD_LIBRARY_PATH";
            return Err(unavailable(ordinal, format!("{library} was not found; {advice}")));
        }
        let mut device = 0;
        let mut context = std::ptr::null_mut();
        let mut stream = std::ptr::null_mut();
        let mut pool = std::ptr::null_mut();
        let mut keep = u64::MAX;
        // SAFETY: each call writes a handle that the next ones use; none is used where one failed.
        let opened = unsafe {
            complaint(sys::cuDeviceGet(&mut device, ordinal as i32))
                .or_else(|| complaint(sys::cuDevicePrimaryCtxRetain(&mut context, device)))
                .or_else(|| complaint(sys::cuCtxSetCurrent(context)))
                .or_else(|| {
                    let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
                    complaint(sys::cuStreamCreate(&mut stream, flags))
                })
                .or_else(|| complaint(sys::cuDeviceGetDefaultMemPool(&mut pool, device)))
                .or_else(|| {
                    // Freed memory stays with the pool: the next step asks for the same again.
                    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
                    complaint(sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut keep).cast()))
                })
        };
        if let Some(reason) = opened {
            return Err(unavailable(ordinal, reason));
        }
        let (name, capability, _) = describe(device);
        let multiprocessors = attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let shared_limit =
            attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        Ok(Context {
            ordinal,
            programs: Programs::new(capability),
            name,
            capability,
            multiprocessors,
            shared_limit,
            stream,
            products: Mutex::new(None),
            context,
            device,
            pool,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            shared_memory: Mutex::default(),
            monitor: OnceLock::new(),
        })
    }

    fn label(&self) -> String {
        format!("cuda:{} ({})", self.ordinal, self.name)
    }

    /// Makes the device's context this thread's; false if nothing may be asked of it any more.
    pub(crate) fn ready(&self) -> bool {
        // SAFETY: the context is retained as long as this lives.
        !self.failed.load(Ordering::Relaxed)
            && !self.refused("its context", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    /// Notes a failure; only the first counts.
    pub(crate) fn fail(&self, error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Notes what the driver refused; true if it did.
    pub(crate) fn refused(&self, operation: &str, result: CUresult) -> bool {
        let complaint = complaint(result);
        if let Some(reason) = &complaint {
            let (device, reason) = (self.label(), reason.clone());
            self.fail(Error::Device { device, operation: operation.into(), reason });
        }
        complaint.is_some()
    }

    /// What went wrong since the last call, after which the device is asked again.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.failed.store(false, Ordering::Relaxed);
        failure.map_or(Ok(()), Err)
    }

    /// Waits for everything that was asked for.
    pub(crate) fn wait(&self) {
        if self.ready() {
            // SAFETY: the stream lives as long as this.
            self.refused("a wait", unsafe { sys::cuStreamSynchronize(self.stream) });
        }
    }

    /// Free and total bytes, other programs counted; memory that the pool keeps free counts as free.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let (mut free, mut total) = (0, 0);
        if self.ready() {
            // SAFETY: writes two integers.
            self.refused("its memory", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) });
        }
        let reserved = self.pool_attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
        let used = self.pool_attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
        // Another run in this process may have taken some in between.
        (free as u64 + reserved.saturating_sub(used), total as u64)
    }

    /// The share of the last moments in which a kernel ran; `None` where nobody knows.
    pub(crate) fn busy(&self) -> Option<f64> {
        let open = || {
            let mut name = [0; 32];
            // SAFETY: writes a terminated string of at most the given length.
            let found = unsafe { sys::cuDeviceGetPCIBusId(name.as_mut_ptr(), name.len() as i32, self.device) };
            // SAFETY: the last byte is 0.
            let bus = || unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
            complaint(found).is_none().then(bus).and_then(Monitor::open)
        };
        self.monitor.get_or_init(open).as_ref()?.busy()
    }

    /// The most bytes that were in use at once.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.pool_attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    fn pool_attribute(&self, attribute: sys::CUmemPool_attribute) -> u64 {
        let mut value = 0u64;
        // SAFETY: these attributes are 64-bit integers.
        let result = unsafe { sys::cuMemPoolGetAttribute(self.pool, attribute, (&raw mut value).cast()) };
        if complaint(result).is_some() { 0 } else { value }
    }

    /// The address of new memory, 0 where there is none left.
    pub(crate) fn allocate(&self, bytes: usize) -> u64 {
        if bytes == 0 || !self.ready() {
            return 0;
        }
        let mut address = 0;
        for attempt in 0..2 {
            // SAFETY: writes one address.
            let result = unsafe { sys::cuMemAllocAsync(&mut address, bytes, self.stream) };
            if result != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return if self.refused("an allocation", result) { 0 } else { address };
            }
            if attempt == 0 {
                self.wait();
                // SAFETY: gives back only what is free.
                self.refused("giving back memory", unsafe { sys::cuMemPoolTrimTo(self.pool, 0) });
            }
        }
        let (free, total) = self.memory();
        self.fail(Error::OutOfMemory { device: self.label(), bytes: bytes as u64, free, total });
        0
    }

    pub(crate) fn free(&self, address: u64) {
        // Freed also after a failure, and without noting one: there is nobody to tell.
        if address != 0 {
            // SAFETY: the address came from `allocate`, and nothing asked for later uses it.
            unsafe {
                let _ = sys::cuCtxSetCurrent(self.context);
                let _ = sys::cuMemFreeAsync(address, self.stream);
            }
        }
    }

    pub(crate) fn upload(&self, address: u64, data: &[u8]) {
        if !data.is_empty() && self.ready() {
            let from: *const c_void = data.as_ptr().cast();
            // SAFETY: the block has the length of `data`, which the driver has read when the call returns, as it is not
            // page-locked.
            let result = unsafe { sys::cuMemcpyHtoDAsync_v2(address, from, data.len(), self.stream) };
            self.refused("an upload", result);
        }
    }

    pub(crate) fn download(&self, address: u64, data: &mut [u8]) {
        if data.is_empty() || !self.ready() {
            return;
        }
        let to: *mut c_void = data.as_mut_ptr().cast();
        // SAFETY: the block has the length of `data`, which is written when the wait below is over.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, data.len(), self.stream) };
        if !self.refused("a download", result) {
            self.wait();
        }
    }

    pub(crate) fn copy(&self, from: u64, to: u64, bytes: usize) {
        if bytes > 0 && self.ready() {
            // SAFETY: both blocks have that length.
            self.refused("a copy", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream) });
        }
    }

    pub(crate) fn clear(&self, address: u64, bytes: usize) {
        if bytes > 0 && self.ready() {
            // SAFETY: the block has that length.
            self.refused("clearing", unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.stream) });
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let products = self.products.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.free(products.as_ref().map_or(0, Products::workspace));
        drop(products);
        // SAFETY: every buffer holds this alive, so nothing uses the stream any more.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuStreamSynchronize(self.stream);
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> u32 {
    let mut value = 0;
    // SAFETY: writes one integer.
    let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
    if complaint(result).is_some() { 0 } else { value as u32 }
}

/// The name, compute capability and bytes of memory of a device.
fn describe(device: sys::CUdevice) -> (String, (u32, u32), u64) {
    let mut name = [0; 256];
    let mut total = 0;
    // SAFETY: writes a terminated string of at most the given length, and an integer.
    unsafe {
        let _ = sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32 - 1, device);
        let _ = sys::cuDeviceTotalMem_v2(&mut total, device);
    }
    // SAFETY: the last byte is 0.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let major = attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    let minor = attribute(device, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    (name, (major, minor), total as u64)
}

/// Name, compute capability and bytes of memory of the device of a number, which [`start`] has counted.
pub(crate) fn look(ordinal: usize) -> (String, (u32, u32), u64) {
    let mut device = 0;
    // SAFETY: writes one integer.
    let _ = unsafe { sys::cuDeviceGet(&mut device, ordinal as i32) };
    describe(device)
}

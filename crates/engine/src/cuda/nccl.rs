//! Several GPUs that sum tensors among themselves, by NCCL.

use std::ffi::{CStr, c_char};

use cudarc::nccl::sys::{self, ncclDataType_t, ncclRedOp_t, ncclResult_t};

use super::Cuda;
use super::buffer::{Buffer, Format};
use crate::device::Communicator;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bytes of a group's name.
const NAME: usize = 128;

/// A GPU's place in a group.
#[derive(Debug)]
pub(super) struct Group {
    device: Cuda,
    handle: sys::ncclComm_t,
}

// SAFETY: the handle belongs to no thread; the device's context is made current before each call.
unsafe impl Send for Group {}

/// What NCCL says of a result; `None` where all is well.
fn complaint(result: ncclResult_t) -> Option<String> {
    if result == ncclResult_t::ncclSuccess {
        return None;
    }
    // SAFETY: gives a pointer to a constant string.
    let text = unsafe { sys::ncclGetErrorString(result) };
    if text.is_null() {
        return Some(format!("{result:?}"));
    }
    // SAFETY: as above.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

impl Group {
    /// A name that no other group has.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without NCCL.
    pub(super) fn name(device: &Cuda) -> Result<Vec<u8>> {
        present(device)?;
        let mut name = sys::ncclUniqueId { internal: [0; NAME] };
        // SAFETY: writes the name.
        match complaint(unsafe { sys::ncclGetUniqueId(&mut name) }) {
            Some(reason) => Err(unavailable(device, reason)),
            None => Ok(name.internal.iter().map(|&letter| letter as u8).collect()),
        }
    }

    /// Waits until all others of the group have joined it, too.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without NCCL, and for what it says.
    pub(super) fn join(device: &Cuda, name: &[u8], (rank, size): (usize, usize)) -> Result<Self> {
        present(device)?;
        let mut internal: [c_char; NAME] = [0; NAME];
        internal.iter_mut().zip(name).for_each(|(letter, &byte)| *letter = byte as c_char);
        let mut handle = std::ptr::null_mut();
        if !device.context.ready() {
            return Err(device.context.check().err().unwrap_or_else(|| unavailable(device, "it has failed".into())));
        }
        // SAFETY: the device's context is current; the handle is written where the call succeeds.
        let joined =
            unsafe { sys::ncclCommInitRank(&mut handle, size as i32, sys::ncclUniqueId { internal }, rank as i32) };
        match complaint(joined) {
            Some(reason) => Err(unavailable(device, reason)),
            None => Ok(Group { device: device.clone(), handle }),
        }
    }

    fn noted(&self, result: ncclResult_t) {
        if let Some(reason) = complaint(result) {
            let device = crate::device::Device::name(&self.device);
            self.device.context.fail(Error::Device { device, operation: "a sum over several GPUs".into(), reason });
        }
    }
}

impl Communicator for Group {
    fn sum(&self, tensors: &mut [&mut Tensor]) {
        // SAFETY: every call between the two is one of this thread's.
        self.noted(unsafe { sys::ncclGroupStart() });
        for tensor in tensors {
            let len = tensor.len();
            let sum = |numbers: &Buffer| {
                if !self.device.context.ready() {
                    return;
                }
                let address = numbers.address() as usize as *mut std::ffi::c_void;
                let (kind, sum, stream) =
                    (ncclDataType_t::ncclFloat32, ncclRedOp_t::ncclSum, self.device.context.stream);
                // SAFETY: the block has `len` numbers, which the tensor keeps until the stream is through with them.
                self.noted(unsafe { sys::ncclAllReduce(address, address, len, kind, sum, self.handle, stream.cast()) });
            };
            self.device.write(tensor, Format::Float, true, sum);
        }
        // SAFETY: as above.
        self.noted(unsafe { sys::ncclGroupEnd() });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not `ncclCommDestroy`, which waits for the others: they may be gone.
        // SAFETY: the handle is not used again. What it says is nobody's concern any more.
        let _ = unsafe { sys::ncclCommAbort(self.handle) };
    }
}

fn present(device: &Cuda) -> Result<()> {
    // SAFETY: only looks for the library.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(unavailable(
            device,
            "NCCL (libnccl) was not found; install it, or name its folder in LD_LIBRARY_PATH".into(),
        )),
    }
}

fn unavailable(device: &Cuda, reason: String) -> Error {
    Error::Unavailable { device: format!("{} in a group", crate::device::Device::name(device)), reason }
}

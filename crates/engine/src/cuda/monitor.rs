//! How busy a GPU is, as NVML, the driver's library for those who watch, sees it.

use nvml_wrapper::Nvml;

/// NVML, and where the GPU stands: it counts GPUs otherwise than a process that was given some of them.
#[derive(Debug)]
pub(super) struct Monitor {
    library: Nvml,
    bus: String,
}

impl Monitor {
    /// `None` where NVML is not installed.
    pub(super) fn open(bus: String) -> Option<Self> {
        Nvml::init().ok().map(|library| Monitor { library, bus })
    }

    /// The share of the last moments in which a kernel ran.
    pub(super) fn busy(&self) -> Option<f64> {
        let gpu = self.library.device_by_pci_bus_id(self.bus.as_str()).ok()?;
        Some(f64::from(gpu.utilization_rates().ok()?.gpu) / 100.0)
    }
}

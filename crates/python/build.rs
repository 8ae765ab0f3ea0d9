//! Where an extension module needs it (macOS), the linker is told that Python will be there when it is loaded.
fn main() {
    pyo3_build_config::add_extension_module_link_args();
}

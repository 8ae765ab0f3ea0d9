use super::{expect_map, expect_shape};
use crate::error::{Error, Result};
use crate::map::{ConvolutionOptions, Map};
use crate::tape::{Tape, Var};

impl Tape<'_> {
    /// A convolution over a feature map, with stride, padding on each side, dilation and groups; zeros around the map.
    /// With as many groups as channels it is depthwise.
    ///
    /// ```text
    /// y[i, j, o] = bias[o] + sum over a, b, c of weight[o, c, a, b] x[i stride + a dilation - top, j stride + b dilation - left, c]
    /// ```
    ///
    /// # Shapes
    /// `x [map rows, in]`, `weight [out, in / groups, kernel height, kernel width]` as model files have it, `bias [out]`;
    /// gives `[output rows, out]` and its map.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit, when the groups do not divide the channels, or when no window fits the map.
    ///
    /// # Reference
    /// `torch.nn.functional.conv2d`.
    pub fn conv2d(
        &mut self,
        x: &Var,
        map: Map,
        weight: &Var,
        bias: Option<&Var>,
        options: ConvolutionOptions,
    ) -> Result<(Var, Map)> {
        let refused = |expected: String, got: String| Err(Error::shape("conv2d", expected, got));
        expect_map("conv2d", x.value(), map)?;
        let ConvolutionOptions { stride, dilation, groups, .. } = options;
        if stride == 0 || dilation == 0 || groups == 0 {
            return refused("stride, dilation and groups of at least 1".into(), format!("{options:?}"));
        }
        let &[outputs, inputs, height, width] = weight.value().shape() else {
            return refused(
                "a weight [out, in / groups, height, width]".into(),
                format!("{:?}", weight.value().shape()),
            );
        };
        if weight.value().is_empty() || outputs % groups != 0 || x.value().columns() != inputs * groups {
            let expected =
                format!("weight [out, {} / {groups}, height, width], out in {groups} parts", x.value().columns());
            return refused(expected, format!("{:?}", weight.value().shape()));
        }
        if let Some(bias) = bias {
            expect_shape("conv2d", "bias", bias.value(), &[outputs])?;
        }
        let Some(output) = options.output(map, (height, width)) else {
            let expected = format!("a map that a kernel of {height} x {width} fits, with {options:?}");
            return refused(expected, format!("{} x {}", map.height, map.width));
        };
        let products = outputs * inputs * height * width;
        self.count(2 * output.rows() * products, &[x, weight]);
        let y = self.device().convolution(x.value(), map, weight.value(), bias.map(Var::value), &options);
        let sources = (x.source(), weight.source(), bias.map(Var::source));
        let (x_value, weight_value) = (x.value().clone(), weight.value().clone());
        let tracked: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
        let y = self.record(&tracked, y, move |backward, dy| {
            let (x_source, weight_source, bias_source) = sources;
            backward.write(x_source, x_value.shape(), |device, dx, accumulate| {
                device.convolution_backward_input(&dy, map, &weight_value, &options, dx, accumulate);
            });
            backward.write(weight_source, weight_value.shape(), |device, dweight, accumulate| {
                device.convolution_backward_weight(&x_value, map, &dy, &options, dweight, accumulate);
            });
            if let Some(source) = bias_source {
                backward.write(source, &[outputs], |device, dbias, accumulate| {
                    device.column_sums(&dy, dbias, accumulate);
                });
            }
            Ok(())
        });
        Ok((y, output))
    }
}

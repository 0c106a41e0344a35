"""The processor's prefetch instruction for Numba: asks for memory before it is needed."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line


@intrinsic
def prefetch(typing_context, array, row, line):
    """Begins to load a cache line, counted from 0, of a row of a C-ordered array; never fails."""

    def generate(context, builder, signature, args):
        fields = context.make_array(signature.args[0])(context, builder, args[0])
        row, line = (
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(args[1:], signature.args[1:], strict=True)
        )
        stride = builder.extract_value(fields.strides, 0)
        offset = builder.add(
            builder.mul(row, stride), builder.mul(line, ir.Constant(line.type, LINE))
        )
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.gep(builder.bitcast(fields.data, byte), [offset])
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        # to read; to be kept in all caches; data
        builder.call(function, [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, row, line), generate

//! Layer 4: routes inputs to the parts that own them and orders their outputs.

import { clocks } from "./clocks.ts";
import { testShort } from "./short.ts";

testShort(clocks);

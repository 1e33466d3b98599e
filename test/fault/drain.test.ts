import { drain } from "./drain.ts";
import { testShort } from "./short.ts";

testShort(drain);

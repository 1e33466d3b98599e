import { phantoms } from "./phantoms.ts";
import { testShort } from "./short.ts";

testShort(phantoms);

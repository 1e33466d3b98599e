import { network } from "./network.ts";
import { testShort } from "./short.ts";

testShort(network);

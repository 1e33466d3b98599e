import { journal } from "./journal.ts";
import { testShort } from "./short.ts";

testShort(journal);

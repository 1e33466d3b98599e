/**
 * Stands in for `buf/validate/validate.proto`, which the generated schema imports for its rules. Nothing here reads rules:
 * the server does. So the descriptor is an empty file of that name and package, in proto2.
 */

import { fileDesc } from "@bufbuild/protobuf/codegenv2";

export const file_buf_validate_validate = fileDesc("ChtidWYvdmFsaWRhdGUvdmFsaWRhdGUucHJvdG8SDGJ1Zi52YWxpZGF0ZQ");

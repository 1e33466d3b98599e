/**
 * PURE. Bedrock's InvokeModel as an upstream of `/embeddings` and `/images/generations`: the vendors' own bodies, one or more
 * calls for each request (reference/UPSTREAM-FORMATS.md D9).
 */

import type { HubCall, HubTarget, Json, JsonUpstream } from "../hub.ts";
import { modelPath } from "./converse.ts";
import { embeddingAnswer, embeddingBodies, embeddingFamilyOf } from "./embeddings.ts";
import { bedrockError } from "./errors.ts";
import { imageAnswer, imageFamilyOf, imageWishOf } from "./images.ts";

function callsOf(bodies: readonly Json[], { model }: HubTarget): HubCall[] {
  const path = modelPath(model, "invoke");
  return bodies.map((body) => ({ path, headers: ["accept", "application/json"], body }));
}

export const bedrockEmbeddings: JsonUpstream = {
  requests: (body, target) => callsOf(embeddingBodies(body, embeddingFamilyOf(target)), target),
  answer: (answers, body, target, context) => embeddingAnswer(answers, body, embeddingFamilyOf(target), context.model),
  error: bedrockError,
};

export const bedrockImages: JsonUpstream = {
  requests: (body, target) => callsOf(imageFamilyOf(target).bodies(imageWishOf(body)), target),
  answer: (answers, body, target, context) =>
    imageAnswer(answers, imageWishOf(body), imageFamilyOf(target), context.createdS),
  error: bedrockError,
};

/** PURE. Which region and service of AWS a host belongs to, for signatures. Facts are from reference/UPSTREAM-FORMATS.md D1. */

export interface AwsAddress {
  /** "": neither the host nor the Provider says; then nothing can be signed. */
  readonly region: string;
  readonly service: string;
}

const MANTLE = "bedrock-mantle";
/** Labels of hosts that the region follows; those of VPC endpoints have one label more before them. */
const LABELS = new Set(["bedrock-runtime", "bedrock-runtime-fips", MANTLE, `${MANTLE}-fips`]);
/** `us-east-1`, `us-gov-west-1`, `eusc-de-east-1`. */
const REGION = /^[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}$/;

/**
 * @param origin scheme, host and port of the Provider
 * @param region what the Provider says, "" if nothing: it wins
 */
export function awsAddress(origin: string, region: string): AwsAddress {
  const labels = new URL(origin).hostname.split(".");
  const at = labels.findIndex((label) => LABELS.has(label));
  const service = at !== -1 && labels[at]!.startsWith(MANTLE) ? MANTLE : "bedrock";
  if (region !== "") return { region, service };
  const found = at === -1 ? undefined : labels[at + 1];
  return { region: found !== undefined && REGION.test(found) ? found : "", service };
}

/** The domain of a region's hosts: partitions of AWS have their own. */
export function awsDomain(region: string): string {
  if (region.startsWith("cn-")) return "amazonaws.com.cn";
  return region.startsWith("eusc-") ? "amazonaws.eu" : "amazonaws.com";
}

/** Why there are no credentials for an account. Messages are for merchants and operators and hold no secrets. */
export class AwsCredentialsError extends Error {
  readonly code:
    /** The Provider has none. */
    | "aws_no_credentials"
    /** The operator does not let Providers use this node's own identity. */
    | "aws_node_identity_not_allowed"
    /** This node has no identity of AWS. */
    | "aws_no_node_identity"
    /** The container's credentials are said to be at an address that is not AWS's. */
    | "aws_container_address_not_allowed"
    | "aws_credentials_unreachable"
    /** The role may not be assumed, or the node's own credentials are refused. */
    | "aws_credentials_refused"
    /** What was answered holds no credentials. */
    | "aws_credentials_invalid_answer";
  constructor(code: AwsCredentialsError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** CNI's error object, and which number each failure has. */
import { type ErrorCode, isWeftError, messageOf } from '../base/errors.ts';
import { LATEST_VERSION } from './types.ts';

/** Numbers 1–99 are the specification's ("Error"). */
export const CNI_CODE = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  ioFailure: 5,
  undecodable: 6,
  invalidConfig: 7,
  tryAgainLater: 11,
  notAvailable: 50,
  /** Not available, and pods that are there may have limited connectivity. */
  notAvailableAffected: 51,
} as const;

/** A refusal in the protocol's own terms. */
export class CniError extends Error {
  readonly cniCode: number;
  readonly details: string;

  constructor(cniCode: number, message: string, details = 'WEFT_CNI_BAD_REQUEST') {
    super(message);
    this.name = 'CniError';
    this.cniCode = cniCode;
    this.details = details;
  }
}

/** Weft's own failures: 100 and up are left to plugins. Documented in docs/errors.md by their WEFT code. */
const NUMBERS: Partial<Record<ErrorCode, number>> = {
  WEFT_IPAM_EXHAUSTED: 100,
  WEFT_IPAM_IN_USE: 101,
  WEFT_IPAM_NOT_IN_POOL: 102,
  WEFT_ATTACH_CONFLICT: 103,
  WEFT_ATTACHMENT_DIFFERS: 104,
  WEFT_NETLINK_REFUSED: 110,
  WEFT_KERNEL_FEATURE_MISSING: 111,
  WEFT_NOT_ROOT: 112,
  WEFT_SYSCALL_FAILED: 113,
  WEFT_STORE_FAILED: CNI_CODE.ioFailure,
  WEFT_STORE_CORRUPT: CNI_CODE.ioFailure,
  WEFT_ATTACHMENT_UNKNOWN: CNI_CODE.unknownContainer,
  WEFT_NETNS_NOT_FOUND: CNI_CODE.unknownContainer,
  WEFT_BAD_ADDRESS: CNI_CODE.invalidConfig,
  WEFT_BAD_CONFIG: CNI_CODE.invalidConfig,
  WEFT_CNI_BAD_REQUEST: CNI_CODE.invalidConfig,
  WEFT_CNI_NOT_READY: CNI_CODE.tryAgainLater,
  WEFT_KERNEL_WORKER_DIED: CNI_CODE.tryAgainLater,
};
const OTHER = 199;

/** Any failure → the error object that the plugin prints. `version` is the configuration's, as far as it is known. */
export function errorObject(error: unknown, version: string = LATEST_VERSION): Record<string, unknown> {
  if (error instanceof CniError) {
    return { cniVersion: version, code: error.cniCode, msg: error.message, details: error.details };
  }
  if (isWeftError(error)) {
    const code = NUMBERS[error.code] ?? OTHER;
    return { cniVersion: version, code, msg: error.message, details: `${error.code}: ${error.hint}` };
  }
  return { cniVersion: version, code: OTHER, msg: messageOf(error), details: 'WEFT_INTERNAL' };
}

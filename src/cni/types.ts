/**
 * The values of the CNI protocol, in one form for all versions.
 *
 * Source: https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md
 */
import type { Cidr, Ip, Mac } from '../base/ip.ts';

export const CNI_VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];
/** Of answers to requests that name no version. */
export const LATEST_VERSION: CniVersion = '1.1.0';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** Whether `version` is `than` or later. */
export function atLeast(version: CniVersion, than: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(than);
}

export interface CniInterface {
  name: string;
  mac?: string;
  /** Since 1.1.0. Bytes. */
  mtu?: number;
  /** Path of the network namespace; absent for interfaces of the host. */
  sandbox?: string;
  /** Since 1.1.0. */
  socketPath?: string;
  /** Since 1.1.0. */
  pciID?: string;
}

export interface CniIp {
  /** With prefix length. */
  address: Cidr;
  gateway?: Ip;
  /** Index into the result's interfaces. */
  interface?: number;
}

/** `mtu` and those after it since 1.1.0. */
export interface CniRoute {
  dst: Cidr;
  gw?: Ip;
  mtu?: number;
  advmss?: number;
  priority?: number;
  table?: number;
  scope?: number;
}

export interface CniDns {
  nameservers?: string[];
  domain?: string;
  search?: string[];
  options?: string[];
}

export interface CniResult {
  interfaces: CniInterface[];
  ips: CniIp[];
  routes: CniRoute[];
  dns: CniDns;
}

/** What the plugin process was given. */
export interface CniInvocation {
  /** CNI_* variables. */
  env: Readonly<Record<string, string>>;
  /** The network configuration as it came. */
  stdin: string;
}

/** What the plugin process answers. */
export interface CniAnswer {
  exitCode: number;
  stdout: string;
}

/** What every command with a network configuration has. */
export interface NetworkConfig {
  version: CniVersion;
  /** Network name. */
  name: string;
  /** Bytes; absent: the node's. */
  mtu?: number;
  dns: CniDns;
  prevResult?: CniResult;
}

/** One interface of one container. */
export interface AttachmentRef {
  containerId: string;
  ifname: string;
}

export interface PodIdentity {
  namespace: string;
  name: string;
  uid?: string;
}

export interface AddRequest extends AttachmentRef {
  config: NetworkConfig;
  netns: string;
  /** Addresses asked for by runtimeConfig, args or CNI_ARGS. */
  ips: Ip[];
  mac?: Mac;
  pod?: PodIdentity;
}

export interface DelRequest extends AttachmentRef {
  network: string;
  /** Empty when the runtime no longer knows it. */
  netns: string;
}

export interface CheckRequest extends AttachmentRef {
  config: NetworkConfig & { prevResult: CniResult };
  netns: string;
}

export interface GcRequest {
  network: string;
  /** All attachments of the network that are to stay. */
  valid: AttachmentRef[];
}

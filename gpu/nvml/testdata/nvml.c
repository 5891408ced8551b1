// A libnvidia-ml.so.1 without hardware, for the tests: they compile it with
// go-nvml's own header, so that its structures are those of the real one.
//
// STUB_DIR names a directory in which tests change what it does, while it runs:
//   control  lines KEY=VALUE (see below), read by every call
//   event    one event, "TYPE DATA GPU GI CI", taken by the next wait
// With -DOLD it is the library of a driver that knows little. With -DSTILL it
// reads control once, when it is loaded: for who measures those that call it.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "nvml.h"

#define EXPORT __attribute__((visibility("default")))

static const char *path(const char *name) {
	static __thread char buf[512];
	snprintf(buf, sizeof buf, "%s/%s", getenv("STUB_DIR"), name);
	return buf;
}

#ifdef STILL
static char still[1024];
__attribute__((constructor)) static void load(void) {
	FILE *f = fopen(path("control"), "r");
	if (!f)
		return;
	still[fread(still, 1, sizeof still - 1, f)] = 0;
	fclose(f);
}
static FILE *control(void) { return fmemopen(still, strlen(still), "r"); }
#else
static FILE *control(void) { return fopen(path("control"), "r"); }
#endif

// get reads a key of the control file; empty when it isn't there.
static const char *get(const char *key) {
	static __thread char value[128];
	char line[256];
	value[0] = 0;
	FILE *f = control();
	if (!f)
		return value;
	size_t n = strlen(key);
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, key, n) && line[n] == '=') {
			line[strcspn(line, "\n")] = 0;
			snprintf(value, sizeof value, "%s", line + n + 1);
		}
	fclose(f);
	return value;
}

static int is(const char *key, const char *value) { return !strcmp(get(key), value); }
static int number(const char *key, int otherwise) { const char *v = get(key); return *v ? atoi(v) : otherwise; }

// enter makes the call that a test names misbehave: hang, crash, exit, fail.
static nvmlReturn_t enter(const char *name) {
	if (is("hang", name))
		for (;;)
			pause();
	if (is("crash", name))
		*(volatile int *)0 = 1;
	if (is("exit", name)) {
		fprintf(stderr, "stub: fatal: the library gives up\n");
		exit(3);
	}
	return is("fail", name) ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}
#define ENTER() do { nvmlReturn_t r_ = enter(__func__); if (r_ != NVML_SUCCESS) return r_; } while (0)

// Devices 0 … 7 are GPUs, 100 + n is slice n of GPU 0.
struct nvmlDevice_st { int n; int lost; };
static struct nvmlDevice_st devices[8], parts[7];

static int gpus(void) { return number("gpus", 2); }
static int migs(void) { return number("mig", -1); } // instances of GPU 0; -1: MIG is off

// A lost device stays lost until the library is started anew.
static nvmlReturn_t alive(nvmlDevice_t d) {
	if (number("lost", -1) == d.handle->n)
		d.handle->lost = 1;
	return d.handle->lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}
#define ALIVE(d) do { ENTER(); nvmlReturn_t a_ = alive(d); if (a_ != NVML_SUCCESS) return a_; } while (0)
#define WHOLE(d) do { ALIVE(d); if ((d).handle->n >= 100) return NVML_ERROR_NOT_SUPPORTED; } while (0)

EXPORT nvmlReturn_t nvmlInit_v2(void) {
	printf("stub: a library that talks on standard output\n");
	fflush(stdout);
	ENTER();
	for (int i = 0; i < 8; i++)
		devices[i].n = i, devices[i].lost = 0;
	for (int i = 0; i < 7; i++)
		parts[i].n = 100 + i;
	return number("init", NVML_SUCCESS);
}
EXPORT nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
EXPORT const char *nvmlErrorString(nvmlReturn_t r) {
	switch (r) {
	case NVML_SUCCESS: return "Success";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
	case NVML_ERROR_UNKNOWN: return "Unknown Error";
	default: return "stub: another error";
	}
}
EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
	ENTER();
	snprintf(version, length, "550.54.15");
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
	ENTER();
	*count = gpus();
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d) {
	ENTER();
	if (i >= (unsigned)gpus())
		return NVML_ERROR_INVALID_ARGUMENT;
	d->handle = &devices[i];
	return alive(*d);
}
EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int length) {
	ALIVE(d);
	snprintf(uuid, length, "%s-00000000-0000-0000-0000-%012d", d.handle->n >= 100 ? "MIG" : "GPU", d.handle->n);
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int length) {
	ALIVE(d);
	snprintf(name, length, "NVIDIA A100-SXM4-80GB%s", d.handle->n < 100 ? "" : d.handle->n == 100 ? " MIG 3g.40gb" : " MIG 1g.10gb");
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) {
	ALIVE(d);
	m->total = (d.handle->n < 100 ? 81920ULL : d.handle->n == 100 ? 40192ULL : 9856ULL) << 20;
	m->used = 1000ULL << 20;
	m->free = m->total - m->used;
	return NVML_SUCCESS;
}

#ifndef OLD
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { ENTER(); *version = 12040; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m) {
	ALIVE(d);
	m->total = (d.handle->n < 100 ? 81920ULL : 40192ULL) << 20;
	m->reserved = 600ULL << 20;
	m->used = 400ULL << 20;
	m->free = m->total - m->reserved - m->used;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned int *minor) { WHOLE(d); *minor = d.handle->n; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *p) {
	WHOLE(d);
	memset(p, 0, sizeof *p);
	p->bus = 7 + 8 * d.handle->n;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor) { WHOLE(d); *major = 8, *minor = 0; return NVML_SUCCESS; }

EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuTopologyLevel_t *level) {
	WHOLE(a);
	*level = a.handle->n / 2 == b.handle->n / 2 ? NVML_TOPOLOGY_SINGLE : NVML_TOPOLOGY_SYSTEM;
	return NVML_SUCCESS;
}
// Six links, of which four are up: to the neighbour, or with nvswitch=1 to switches.
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t d, unsigned int link, nvmlEnableState_t *on) {
	WHOLE(d);
	if (link >= 6)
		return NVML_ERROR_INVALID_ARGUMENT;
	*on = link < 4 ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t d, unsigned int link, nvmlIntNvLinkDeviceType_t *type) {
	WHOLE(d);
	*type = is("nvswitch", "1") ? NVML_NVLINK_DEVICE_TYPE_SWITCH : NVML_NVLINK_DEVICE_TYPE_GPU;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t d, unsigned int link, nvmlPciInfo_t *p) {
	WHOLE(d);
	memset(p, 0, sizeof *p);
	p->bus = is("nvswitch", "1") ? 200 + link : 7 + 8 * (d.handle->n ^ 1);
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u) { WHOLE(d); u->gpu = 75, u->memory = 20; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t s, unsigned int *t) { WHOLE(d); *t = 54; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *mw) { WHOLE(d); *mw = 251500; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *mw) { WHOLE(d); *mw = 400000; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t d, unsigned long long *mj) { WHOLE(d); *mj = 12345678; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t type, unsigned int *mhz) { WHOLE(d); *mhz = type == NVML_CLOCK_SM ? 1410 : 1593; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t d, unsigned int *speed) { WHOLE(d); return NVML_ERROR_NOT_SUPPORTED; }
EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *n) {
	WHOLE(d);
	*n = type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? 3 : 1;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, unsigned int *corr, unsigned int *unc, unsigned int *pending, unsigned int *failed) {
	WHOLE(d);
	*corr = 1, *unc = 2, *pending = 1, *failed = 0;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t d, unsigned int *n) { WHOLE(d); *n = 9; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t d, nvmlPcieUtilCounter_t c, unsigned int *kb) { WHOLE(d); *kb = c == NVML_PCIE_UTIL_TX_BYTES ? 10 : 20; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *mask) { WHOLE(d); *mask = 4; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int count, nvmlFieldValue_t *f) {
	WHOLE(d);
	for (int i = 0; i < count; i++) {
		f[i].nvmlReturn = NVML_SUCCESS;
		f[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		if (f[i].fieldId == NVML_FI_DEV_MEMORY_TEMP)
			f[i].value.uiVal = 61;
		else
			f[i].nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
	}
	return NVML_SUCCESS;
}

// Process 4242 computes and draws on every GPU and slice; of 4343 the memory
// isn't known.
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int *count, nvmlProcessInfo_t *p) {
	ALIVE(d);
	if (*count < 2) {
		*count = 2;
		return NVML_ERROR_INSUFFICIENT_SIZE;
	}
	*count = 2;
	memset(p, 0, 2 * sizeof *p);
	p[0].pid = 4242, p[0].usedGpuMemory = 300ULL << 20;
	p[1].pid = 4343, p[1].usedGpuMemory = ~0ULL;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned int *count, nvmlProcessInfo_t *p) {
	ALIVE(d);
	if (*count < 1) {
		*count = 1;
		return NVML_ERROR_INSUFFICIENT_SIZE;
	}
	*count = 1;
	memset(p, 0, sizeof *p);
	p[0].pid = 4242, p[0].usedGpuMemory = 310ULL << 20;
	return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *current, unsigned int *pending) {
	WHOLE(d);
	*current = *pending = d.handle->n == 0 && migs() >= 0;
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned int *count) { WHOLE(d); *count = 7; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned int i, nvmlDevice_t *part) {
	WHOLE(d);
	if (d.handle->n != 0 || (int)i >= migs())
		return NVML_ERROR_NOT_FOUND;
	part->handle = &parts[i];
	return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t d, unsigned int *id) { ENTER(); *id = d.handle->n - 100 + 1; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t d, unsigned int *id) { ENTER(); *id = 0; return NVML_SUCCESS; }

static int set;
EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *s) { ENTER(); s->handle = (struct nvmlEventSet_st *)&set; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t s) { ENTER(); return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *types) { WHOLE(d); *types = 0xff; return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t s) { WHOLE(d); return NVML_SUCCESS; }
EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t s, nvmlEventData_t *e, unsigned int timeout) {
	ENTER();
	// The real library sleeps until the driver has an event. Who measures what
	// an idle process costs makes this look seldom.
	unsigned int step = number("event_poll_ms", 5);
	for (unsigned int waited = 0;; waited += step) {
		FILE *f = fopen(path("event"), "r");
		if (f) {
			unsigned long long type, data;
			unsigned int gpu, gi, ci;
			int n = fscanf(f, "%llu %llu %u %u %u", &type, &data, &gpu, &gi, &ci);
			fclose(f);
			unlink(path("event"));
			if (n == 5) {
				e->device.handle = &devices[gpu];
				e->eventType = type, e->eventData = data;
				e->gpuInstanceId = gi, e->computeInstanceId = ci;
				return NVML_SUCCESS;
			}
		}
		if (waited >= timeout)
			return NVML_ERROR_TIMEOUT;
		usleep(step * 1000);
	}
}
#endif

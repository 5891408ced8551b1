package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	readClients = 64
	readFor     = 5 * time.Second
)

// measureReads gets one instance over the control socket again and again. The
// clients share the host's cores with berthd, so they do as little as they can:
// no http.Client, no JSON.
func (h *host) measureReads(ctx context.Context) ([]result, error) {
	inst, err := h.client.Instance(ctx, "box")
	if err != nil {
		return nil, err
	}
	request := fmt.Appendf(nil, "GET /berth/v1/instances/%s HTTP/1.1\r\nHost: berthd\r\n\r\n", inst.ID)
	deadline := time.Now().Add(readFor)
	each := make([][]time.Duration, readClients)
	var group errgroup.Group
	for n := range readClients {
		group.Go(func() (err error) {
			each[n], err = h.readUntil(ctx, deadline, request)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, times := range each {
		all = append(all, times...)
	}
	return []result{
		newResult(fmt.Sprintf("reads of an instance, clients: %d", readClients), float64(len(all))/readFor.Seconds(), "/s").atLeast(20_000),
		newResult(fmt.Sprintf("reads of an instance, clients: %d, p99", readClients), quantile(all, 0.99), "ms").atMost(10),
	}, nil
}

// readUntil is one client with a connection of its own.
func (h *host) readUntil(ctx context.Context, deadline time.Time, request []byte) ([]time.Duration, error) {
	conn, err := net.Dial("unix", h.socket())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	var times []time.Duration
	for began := time.Now(); began.Before(deadline) && ctx.Err() == nil; began = time.Now() {
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("get an instance: %s", response.Status)
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// configKey is one key of Config with its three names.
type configKey struct {
	path  string // node.cpu_milli
	help  string
	value reflect.Value
}

func (k configKey) flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(k.path)
}

func (k configKey) env() string {
	return "BERTH_" + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

func (k configKey) set(text string) error {
	switch k.value.Kind() {
	case reflect.String:
		k.value.SetString(text)
		return nil
	case reflect.Slice: // of strings, separated by commas
		k.value.Set(reflect.ValueOf(splitList(text)))
		return nil
	case reflect.Bool:
		on, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		k.value.SetBool(on)
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	k.value.SetInt(n)
	return nil
}

// String is the value as set reads it.
func (k configKey) String() string {
	if list, ok := k.value.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(k.value)
}

func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// configKeys lists every key of c, in the order of the struct, but for tables
// that may stand in the file several times.
func configKeys(c *Config) []configKey { return keysOf(reflect.ValueOf(c).Elem(), "") }

func keysOf(v reflect.Value, prefix string) []configKey {
	var keys []configKey
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := prefix + f.Tag.Get("toml")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(v.Field(i), path+".")...)
			continue
		}
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			continue
		}
		keys = append(keys, configKey{path: path, help: f.Tag.Get("help"), value: v.Field(i)})
	}
	return keys
}
